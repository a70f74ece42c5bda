// Command kubernetes judges manifests as a cluster would: each document must be of a kind that it knows, with no field that the
// kind has not, and each pod must be one that the Pod Security level "restricted" allows.
//
//	kubernetes FILE...
//
// It prints a line for each pod, and exits with 1 when a document or a pod is refused.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// Of each kind that the chart has, an empty object.
func empty(kind string) any {
	switch kind {
	case "v1/ConfigMap":
		return &corev1.ConfigMap{}
	case "v1/Namespace":
		return &corev1.Namespace{}
	case "v1/Pod":
		return &corev1.Pod{}
	case "v1/Secret":
		return &corev1.Secret{}
	case "v1/Service":
		return &corev1.Service{}
	case "v1/ServiceAccount":
		return &corev1.ServiceAccount{}
	case "apps/v1/StatefulSet":
		return &appsv1.StatefulSet{}
	case "batch/v1/Job":
		return &batchv1.Job{}
	case "networking.k8s.io/v1/Ingress":
		return &networkingv1.Ingress{}
	case "networking.k8s.io/v1/NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "policy/v1/PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "gateway.networking.k8s.io/v1/HTTPRoute":
		return &gateway.HTTPRoute{}
	case "monitoring.coreos.com/v1/ServiceMonitor":
		return &monitoring.ServiceMonitor{}
	case "monitoring.coreos.com/v1/PrometheusRule":
		return &monitoring.PrometheusRule{}
	}
	return nil
}

// Kinds whose types no module has that can be fetched.
var unchecked = map[string]bool{"gateway.nginx.org/v1alpha1/ClientSettingsPolicy": true}

// The pod that an object is or makes.
func pod(object any) (*metav1.ObjectMeta, *corev1.PodSpec) {
	switch object := object.(type) {
	case *corev1.Pod:
		return &object.ObjectMeta, &object.Spec
	case *appsv1.StatefulSet:
		return &object.Spec.Template.ObjectMeta, &object.Spec.Template.Spec
	case *batchv1.Job:
		return &object.Spec.Template.ObjectMeta, &object.Spec.Template.Spec
	}
	return nil, nil
}

type judge struct {
	evaluator policy.Evaluator
	refused   bool
}

func (j *judge) refuse(where, text string) {
	j.refused = true
	fmt.Printf("%s: refused: %s\n", where, text)
}

func (j *judge) document(file string, document []byte) {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		j.refuse(file, err.Error())
		return
	}
	if head.Kind == "" && len(bytes.TrimSpace(document)) == 0 {
		return
	}
	where := fmt.Sprintf("%s: %s/%s", file, head.Kind, head.Name)
	kind := head.APIVersion + "/" + head.Kind
	if unchecked[kind] {
		return
	}
	object := empty(kind)
	if object == nil {
		j.refuse(where, "no such kind: "+kind)
		return
	}
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		j.refuse(where, err.Error())
		return
	}
	metadata, spec := pod(object)
	if spec == nil {
		return
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(j.evaluator.EvaluatePod(level, metadata, spec))
	if !result.Allowed {
		j.refuse(where, result.ForbiddenDetail())
		return
	}
	fmt.Printf("%s: restricted allows it\n", where)
}

func (j *judge) file(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		// Comments alone are no document.
		lines := strings.Split(string(document), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "#") || line == "---" {
				lines[i] = ""
			}
		}
		j.document(path, []byte(strings.Join(lines, "\n")))
	}
}

func run() (bool, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return false, err
	}
	j := judge{evaluator: evaluator}
	for _, path := range os.Args[1:] {
		if err := j.file(path); err != nil {
			return false, err
		}
	}
	return j.refused, nil
}

func main() {
	refused, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if refused {
		os.Exit(1)
	}
}
