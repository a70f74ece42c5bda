{{/* What the pods of the StatefulSet and of the Jobs have in common. */}}
{{- define "forebay.podSpec" -}}
serviceAccountName: {{ include "forebay.serviceAccount" . }}
automountServiceAccountToken: false
# Variables of other Services have no business among FOREBAY_….
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # A full volume has many files: their owner is looked at once, at the top.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The same for every container. */}}
{{- define "forebay.container" -}}
image: {{ include "forebay.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- end }}

{{/* Argument: the root, and the name of the pod whose volume it is: a Job that drains goes on under the name of the pod that is gone. */}}
{{- define "forebay.env" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
- name: POD_NAME
  value: {{ . }}
{{- else -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end }}
- name: FOREBAY__SPOOL__REPLICA
  value: {{ $root.Values.replicaPrefix }}$(POD_NAME)
# For commands in the container: kubectl exec POD -- forebay dead-letters list
- name: FOREBAY_CONFIG
  value: /etc/forebay/forebay.yaml
- name: FOREBAY_LOG_FORMAT
  value: {{ $root.Values.log.format }}
- name: FOREBAY_LOG
  value: {{ $root.Values.log.filter | quote }}
{{- with $root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Configuration, secrets, and what the values add. */}}
{{- define "forebay.mounts" -}}
- name: config
  mountPath: /etc/forebay
  readOnly: true
{{- if or .Values.secrets.existing .Values.secrets.create }}
- name: secrets
  mountPath: /run/secrets/forebay
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "forebay.volumes" -}}
- name: config
  configMap:
    name: {{ include "forebay.fullname" . }}
{{- if or .Values.secrets.existing .Values.secrets.create }}
- name: secrets
  projected:
    # For the group of the pod, and nobody else.
    defaultMode: 0440
    sources:
      {{- range .Values.secrets.existing }}
      - secret: {{- toYaml . | nindent 10 }}
      {{- end }}
      {{- if .Values.secrets.create }}
      - secret:
          name: {{ include "forebay.fullname" . }}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
