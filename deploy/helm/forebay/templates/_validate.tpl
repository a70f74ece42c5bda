{{/* What in the values cannot work or breaks a promise, all of it at once. What Forebay itself can tell of its configuration, `forebay check` tells. */}}
{{- define "forebay.problems" -}}
{{- $values := .Values -}}
{{- $config := $values.config -}}
{{- $server := $config.server -}}
{{- $seconds := dict -}}
{{- range list "body_deadline" "drain_delay" "shutdown_deadline" }}{{ $_ := set $seconds . (include "forebay.seconds" (get $server .) | int) }}{{ end -}}

{{- if not $config.endpoints }}
config.endpoints: none; name at least one webhook, with its path and secrets
{{- end }}
{{- if not $config.sinks }}
config.sinks: none; name at least one broker
{{- end }}

{{- if lt (add $values.preStopSeconds $seconds.drain_delay | int) 5 }}
preStopSeconds: with config.server.drain_delay {{ add $values.preStopSeconds $seconds.drain_delay }} s; proxies learn of a pod's end for 5 s, and what they send it meanwhile would be lost
{{- end }}
{{- if lt $seconds.shutdown_deadline (add $seconds.body_deadline 5 | int) }}
config.server.shutdown_deadline: below config.server.body_deadline and 5 s: the last body could not be read, synced and answered
{{- end }}
{{- with $values.terminationGracePeriodSeconds }}
{{- if lt (int .) (include "forebay.gracePeriod" $ | int) }}
terminationGracePeriodSeconds: {{ . }}, and a pod may take {{ include "forebay.gracePeriod" $ }} s to stop: it would be killed with requests under way
{{- end }}
{{- end }}

{{- range $key, $address := dict "config.server.listen" $server.listen "config.admin.listen" $config.admin.listen }}
{{- if regexMatch "^(127\\.|\\[::1\\])" $address }}
{{ $key }}: {{ $address }} is reached from nowhere but the pod itself
{{- end }}
{{- end }}
{{- if eq (include "forebay.port" $server.listen) (include "forebay.port" $config.admin.listen) }}
config.admin.listen: the port of config.server.listen
{{- end }}

{{- range list "dir" "replica" }}
{{- if hasKey $config.spool . }}
config.spool.{{ . }}: the chart says it: the volume is at /var/lib/forebay, a replica has its pod's name
{{- end }}
{{- end }}
{{- $routes := $config.routes | default (dict "events" dict "thumbnails" dict) }}
{{- $stored := include "forebay.bytes" $config.spool.bytes_max | int64 }}
{{- range $routes }}
{{- $stored = add $stored (include "forebay.bytes" (default "256MiB" .dead_letters_bytes_max) | int64) }}
{{- end }}
{{- $needed := div (mul $stored 100) 95 }}
{{- if lt (include "forebay.bytes" $values.persistence.size | int64) $needed }}
persistence.size: {{ $values.persistence.size }} has no room for config.spool.bytes_max ({{ $config.spool.bytes_max }}), each route's dead_letters_bytes_max (256MiB) and the file system; at least {{ div (add $needed 1048575) 1048576 }}Mi
{{- end }}

{{- /* Newest records, all else, unfinished heads, what routes read; and what a connection and an event's id take. */}}
{{- $memory := add 201326592 33554432 134217728 (mul 16384 (int64 (default 10000 $server.connections_max))) (mul 100 (int64 (default 200000 $server.event_ids_max))) (include "forebay.bytes" $server.bodies_bytes_max | int64) }}
{{- range $routes }}
{{- $memory = add $memory (include "forebay.bytes" (default "64MiB" .in_flight_bytes_max) | int64) }}
{{- if include "forebay.seconds" (default "0s" .reorder_window) | int }}
{{- $memory = add $memory (include "forebay.bytes" (default "64MiB" .reorder_bytes_max) | int64) }}
{{- end }}
{{- end }}
{{- with ($values.resources.limits | default dict).memory }}
{{- if lt (include "forebay.bytes" . | int64) $memory }}
resources.limits.memory: {{ . }} has no room for bodies_bytes_max, connections_max, in_flight_bytes_max and reorder_bytes_max of each route, and what else it takes; at least {{ div (add $memory 1048575) 1048576 }}Mi
{{- end }}
{{- end }}

{{- /* The chart computes with these keys, and the environment would win over them. */}}
{{- range $values.env }}
{{- if regexMatch "^FOREBAY__(SERVER|ADMIN|SPOOL)__|^FOREBAY_(CONFIG|LOG|LOG_FORMAT)$|^POD_NAME$" .name }}
env: {{ .name }} belongs into the values: config.…, log.…
{{- end }}
{{- end }}

{{- /* What would be readable in the ConfigMap. */}}
{{- range $name, $endpoint := $config.endpoints }}
{{- range $endpoint.secrets }}
{{- if hasPrefix "base64:" . }}
config.endpoints.{{ $name }}.secrets: base64:… would be in a ConfigMap; put it into a Secret and write file:/run/secrets/forebay/…
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $sink := $config.sinks }}
{{- range kindIs "string" $sink.uri | ternary (list $sink.uri) (default list $sink.uri) }}
{{- if regexMatch "^amqps?://[^/]*@" . }}
config.sinks.{{ $name }}.uri: its user and password would be in a ConfigMap; write file:/run/secrets/forebay/… or username and password
{{- end }}
{{- end }}
{{- with $sink.password }}
{{- if not (regexMatch "^(file|env):" .) }}
config.sinks.{{ $name }}.password: would be in a ConfigMap; write file:/run/secrets/forebay/…
{{- end }}
{{- end }}
{{- range $property := include "forebay.leaves" (default dict $sink.properties) | fromJsonArray }}
{{- if regexMatch "(password|secret|key\\.pem)$" $property }}
config.sinks.{{ $name }}.properties: {{ $property }} would be in a ConfigMap; give FOREBAY__SINKS__{{ $name | upper | replace "-" "_" }}__PROPERTIES__{{ $property | upper | replace "." "__" }} by env
{{- end }}
{{- end }}
{{- end }}

{{- if and $values.ingress.enabled (not $values.ingress.hosts) }}
ingress.hosts: none
{{- end }}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) }}
httpRoute.parentRefs: none; a route belongs to a Gateway
{{- end }}
{{- if and $values.service.externalTrafficPolicy (eq $values.service.type "ClusterIP") }}
service.externalTrafficPolicy: a Service of type ClusterIP has none
{{- end }}
{{- if and $values.test.endpoint (not (hasKey $config.endpoints $values.test.endpoint)) }}
test.endpoint: no {{ $values.test.endpoint }} in config.endpoints
{{- end }}
{{- range $values.drain.ordinals }}
{{- if lt (int .) (int $values.replicaCount) }}
drain.ordinals: {{ . }} is one of {{ $values.replicaCount }} pods that run; scale down first
{{- end }}
{{- end }}
{{- end }}

{{/* The dotted names of the leaves of a table, however it is nested, as JSON. */}}
{{- define "forebay.leaves" -}}
{{- $leaves := list -}}
{{- range $name, $value := . -}}
{{- if kindIs "map" $value -}}
{{- range include "forebay.leaves" $value | fromJsonArray }}{{ $leaves = append $leaves (printf "%s.%s" $name .) }}{{ end -}}
{{- else -}}
{{- $leaves = append $leaves $name -}}
{{- end -}}
{{- end -}}
{{- toJson $leaves -}}
{{- end }}

{{- define "forebay.validate" -}}
{{- with include "forebay.problems" . | trim -}}
{{- fail (printf "the values cannot be used\n%s" .) -}}
{{- end -}}
{{- end }}
