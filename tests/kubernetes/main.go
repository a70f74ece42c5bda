// Command kubernetes judges manifests as a cluster would.
//
//	kubernetes check FILE...   each document must be of a kind that the chart may have, without a field that the kind has not, and
//	                           each pod one that the Pod Security level "restricted" allows; a line for each pod. Exits with 1
//	                           when something is refused.
//	kubernetes json FILE...    prints each document as JSON, one a line.
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

// An empty object of each kind that the chart may have.
var kinds = map[string]func() any{
	"v1/ConfigMap":                            func() any { return &corev1.ConfigMap{} },
	"v1/Namespace":                            func() any { return &corev1.Namespace{} },
	"v1/Pod":                                  func() any { return &corev1.Pod{} },
	"v1/Secret":                               func() any { return &corev1.Secret{} },
	"v1/Service":                              func() any { return &corev1.Service{} },
	"v1/ServiceAccount":                       func() any { return &corev1.ServiceAccount{} },
	"apps/v1/StatefulSet":                     func() any { return &appsv1.StatefulSet{} },
	"batch/v1/Job":                            func() any { return &batchv1.Job{} },
	"networking.k8s.io/v1/Ingress":            func() any { return &networkingv1.Ingress{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":           func() any { return &policyv1.PodDisruptionBudget{} },
	"gateway.networking.k8s.io/v1/HTTPRoute":  func() any { return &gateway.HTTPRoute{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any { return &monitoring.ServiceMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
	// No module that can be fetched has its type: taken as it is.
	"gateway.nginx.org/v1alpha1/ClientSettingsPolicy": func() any { return &map[string]any{} },
}

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

// Calls do with each document of a file that has more than comments.
func documents(path string, do func(document []byte)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		json, err := yaml.YAMLToJSON(document)
		if err == nil && bytes.Equal(bytes.TrimSpace(json), []byte("null")) {
			continue
		}
		do(document)
	}
}

type judge struct {
	evaluator policy.Evaluator
	refused   bool
}

func (j *judge) refuse(where string, reason any) {
	j.refused = true
	fmt.Printf("%s: refused: %v\n", where, reason)
}

func (j *judge) document(path string, document []byte) {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		j.refuse(path, err)
		return
	}
	where := fmt.Sprintf("%s: %s/%s", path, head.Kind, head.Name)
	kind, found := kinds[head.APIVersion+"/"+head.Kind]
	if !found {
		j.refuse(where, "no such kind in "+head.APIVersion)
		return
	}
	object := kind()
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		j.refuse(where, err)
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
	fmt.Printf("%s: allowed\n", where)
}

func check(paths []string) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	j := judge{evaluator: evaluator}
	for _, path := range paths {
		if err := documents(path, func(document []byte) { j.document(path, document) }); err != nil {
			return err
		}
	}
	if j.refused {
		os.Exit(1)
	}
	return nil
}

func json(paths []string) error {
	for _, path := range paths {
		var failed error
		err := documents(path, func(document []byte) {
			line, err := yaml.YAMLToJSONStrict(document)
			if err != nil {
				failed = fmt.Errorf("%s: %w", path, err)
				return
			}
			fmt.Println(strings.TrimSpace(string(line)))
		})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	commands := map[string]func([]string) error{"check": check, "json": json}
	if len(os.Args) < 3 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kubernetes check|json FILE...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
