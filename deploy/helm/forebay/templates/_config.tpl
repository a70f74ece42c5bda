{{/* The configuration, without tables that are empty: an empty table of routes is not "no routes". */}}
{{- define "forebay.config" -}}
{{- $config := dict -}}
{{- range $name, $table := .Values.config -}}
{{- if $table -}}{{- $_ := set $config $name $table -}}{{- end -}}
{{- end -}}
{{- $spool := merge (dict "dir" "/var/lib/forebay") $config.spool -}}
{{- $server := $config.server -}}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled (eq .Values.service.type "LoadBalancer") -}}
{{- $server = merge (dict) $server (dict "health_path" "/healthz") -}}
{{- end -}}
{{- toYaml (merge (dict "spool" $spool "server" $server) $config) -}}
{{- end }}

{{/* Of an address, the port. */}}
{{- define "forebay.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end }}

{{/* "10s", "1h 30m", "500ms" in seconds, rounded up. */}}
{{- define "forebay.seconds" -}}
{{- $of := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+ *(ms|s|m|h)" . -1 -}}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) (get $of (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end }}

{{/* "16MiB", "12Gi", "16MB", a number: in bytes. */}}
{{- define "forebay.bytes" -}}
{{- if kindIs "string" . -}}
{{- $of := dict "" 1 "k" 1000 "m" 1000000 "g" 1000000000 "t" 1000000000000 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776 -}}
{{- mul (regexFind "[0-9]+" . | int64) (get $of (regexFind "[a-zA-Z]*$" . | lower | trimSuffix "b")) -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end }}

{{/* What may pass between the deletion of a pod and its end: it waits (preStop), goes on accepting (drain_delay), lets the
     last bodies come in (body_deadline), settles what is in flight (shutdown_deadline), syncs and closes the spool (10 s),
     and 5 s for all else. */}}
{{- define "forebay.gracePeriod" -}}
{{- $server := .Values.config.server -}}
{{- $sum := add .Values.preStopSeconds 10 5 -}}
{{- range list $server.drain_delay $server.body_deadline $server.shutdown_deadline -}}
{{- $sum = add $sum (include "forebay.seconds" .) -}}
{{- end -}}
{{- $sum -}}
{{- end }}

{{/* How long a proxy waits for an answer: for the body, for the disk (2.5 s), and for the way. */}}
{{- define "forebay.proxySeconds" -}}
{{- add (include "forebay.seconds" .Values.config.server.body_deadline) 5 -}}
{{- end }}

{{/* The ports of the brokers, as JSON. */}}
{{- define "forebay.brokerPorts" -}}
{{- $ports := list -}}
{{- range $sink := .Values.config.sinks -}}
{{- range $sink.brokers -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default "9092" | int) -}}
{{- end -}}
{{- range kindIs "string" $sink.uri | ternary (list $sink.uri) (default list $sink.uri) -}}
{{- $authority := regexFind "^amqps?://[^/]*" . -}}
{{- if $authority -}}
{{- $usual := hasPrefix "amqps:" $authority | ternary "5671" "5672" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $authority | trimPrefix ":" | default $usual | int) -}}
{{- else -}}
{{- $ports = concat $ports (list 5671 5672) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{/* The endpoint to which `helm test` sends. */}}
{{- define "forebay.testEndpoint" -}}
{{- default (keys .Values.config.endpoints | sortAlpha | first) .Values.test.endpoint -}}
{{- end }}
