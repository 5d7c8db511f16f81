{{/* All of them. What needs the whole configuration is left out where another makes the ConfigMap: an umbrella chart that
does so includes this with a context of its own, in which configMap.create is on. */}}
{{- define "gateway.checks" -}}
{{- include "gateway.checkOwned" . }}
{{- include "gateway.checkKeys" . }}
{{- include "gateway.checkDrain" . }}
{{- include "gateway.checkScaling" . }}
{{- include "gateway.checkRoutes" . }}
{{- include "gateway.checkStore" . }}
{{- include "gateway.checkReach" . }}
{{- include "gateway.checkFolders" . }}
{{- include "gateway.checkImages" . }}
{{- if .Values.configMap.create }}
{{- include "gateway.checkDiscovery" . }}
{{- include "gateway.checkModels" . }}
{{- end }}
{{- end -}}

{{/* Keys of `config` that the chart sets: what stands there would not count, or would not fit the pod. */}}
{{- define "gateway.checkOwned" -}}
{{- $fixes := dict
  "server.host" "remove it; the pod listens on `listen`"
  "server.port" "remove it; the pod has port 8000, and clients see service.port"
  "server.admin_host" "remove it; the pod listens on `listen`"
  "server.admin_port" "remove it; the pod has port 9090"
  "server.drain_seconds" "remove it and set drainSeconds, which the pod's grace period follows"
  "server.drain_delay_seconds" "remove it and set drainDelaySeconds"
  "auth.keys_file" "remove it and say under `keys` where keys come from; they are mounted as a folder"
  "auth.keys_directory" "remove it and say under `keys` where keys come from"
  "quotas.store.password_file" "remove it and set valkey.passwordSecret" -}}
{{- range $place, $fix := $fixes -}}
{{- $names := splitList "." $place -}}
{{- $section := $.Values.config -}}
{{- range initial $names -}}{{- $section = index ($section | default dict) . | default dict -}}{{- end -}}
{{- if hasKey $section (last $names) -}}
{{- printf "config.%s is the chart's to set: %s" $place $fix | fail -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if regexMatch "^GEMMA_GATEWAY_(SERVER__(HOST|PORT|ADMIN_|DRAIN_)|AUTH__KEYS_)" .name -}}
{{- printf "extraEnv has %s, which would win over what the chart sets: remove it, and use `listen`, drainSeconds and `keys`" .name | fail -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(config|host|port|admin-host|admin-port|drain-seconds|keys-file)(=|$)" . -}}
{{- printf "extraArgs has %s, which would win over what the chart sets: remove it, and use `config`, `listen`, drainSeconds and `keys`" . | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkKeys" -}}
{{- $keys := .Values.keys -}}
{{- $given := dict "records" $keys.records "existing" $keys.existing "external" $keys.external.remoteRef -}}
{{- range $source, $what := $given -}}
{{- if and $what (ne $keys.source $source) -}}
{{- printf "keys.%s is set, and keys.source=%s leaves it out: set keys.source=%s, or remove it" $source $keys.source $source | fail -}}
{{- end -}}
{{- end -}}
{{- if and (eq $keys.source "existing") (not $keys.existing) -}}
{{- fail "keys.source=existing needs a Secret with a key file: make one by `gemma-gateway keys secret --file keys.yaml`, and set keys.existing=[{secret: gemma-keys}]" -}}
{{- end -}}
{{- if and (eq $keys.source "records") (not $keys.records) -}}
{{- fail "keys.source=records needs entries under keys.records: copy those of a file that `gemma-gateway keys create` wrote" -}}
{{- end -}}
{{- if and (eq $keys.source "external") (not (and $keys.external.remoteRef $keys.external.secretStoreRef)) -}}
{{- fail "keys.source=external needs keys.external.secretStoreRef, such as {name: vault, kind: ClusterSecretStore}, and keys.external.remoteRef, such as {key: gemma/keys, property: keys.yaml}" -}}
{{- end -}}
{{- if and (eq $keys.source "none") .Values.configMap.create (not (dig "auth" "jwt" dict .Values.config)) -}}
{{- fail "keys.source=none without config.auth.jwt would let everyone in, and the gateway does not start so: set keys.source=generated, or name a provider of tokens under config.auth.jwt" -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkDrain" -}}
{{- if and (gt (float64 .Values.drainDelaySeconds) 0.0) (ge (float64 .Values.drainDelaySeconds) (float64 .Values.drainSeconds)) -}}
{{- printf "drainDelaySeconds=%v is a part of drainSeconds=%v and leaves nothing for requests to finish: raise drainSeconds to %v, say" .Values.drainDelaySeconds .Values.drainSeconds (addf .Values.drainDelaySeconds 60) | fail -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkScaling" -}}
{{- $values := .Values -}}
{{- if and $values.hpa.enabled $values.keda.enabled -}}
{{- fail "hpa.enabled and keda.enabled both decide how many gateways there are: turn one off, such as hpa.enabled=false" -}}
{{- end -}}
{{- if and $values.keda.enabled (not $values.keda.prometheus) (not $values.keda.triggers) -}}
{{- fail "keda.enabled needs something to scale by: set keda.prometheus=http://prometheus.monitoring.svc:9090, or keda.triggers" -}}
{{- end -}}
{{- if and $values.hpa.enabled (not $values.hpa.cpuPercent) (not $values.hpa.metrics) -}}
{{- fail "hpa.enabled needs something to scale by: set hpa.cpuPercent=70, or hpa.metrics" -}}
{{- end -}}
{{- range $name := list "hpa" "keda" -}}
{{- $scaler := index $values $name -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- printf "%s.minReplicas=%v is above %s.maxReplicas=%v: lower the one or raise the other" $name $scaler.minReplicas $name $scaler.maxReplicas | fail -}}
{{- end -}}
{{- end -}}
{{- include "gateway.checkBudget" . -}}
{{- end -}}

{{- define "gateway.checkBudget" -}}
{{- $pdb := .Values.pdb -}}
{{- if $pdb.enabled -}}
{{- $least := toString $pdb.minAvailable -}}
{{- $most := toString $pdb.maxUnavailable -}}
{{- if and (ne $least "") (ne $most "") -}}
{{- fail "pdb.minAvailable and pdb.maxUnavailable exclude each other: set pdb.maxUnavailable=\"\"" -}}
{{- end -}}
{{- if and (eq $least "") (eq $most "") -}}
{{- fail "pdb.enabled needs pdb.maxUnavailable or pdb.minAvailable: set pdb.maxUnavailable=1" -}}
{{- end -}}
{{- $scaler := .Values.hpa.enabled | ternary .Values.hpa .Values.keda -}}
{{- $replicas := $scaler.enabled | ternary $scaler.minReplicas .Values.replicas -}}
{{- $none := or (has $most (list "0" "0%")) (eq $least "100%") -}}
{{- if or $none (and (regexMatch "^[0-9]+$" $least) (ge (int $least) (int $replicas))) -}}
{{- printf "the PodDisruptionBudget would let none of %v gateways go, so that no node could ever be drained: set pdb.maxUnavailable=1 and pdb.minAvailable=\"\"" $replicas | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkRoutes" -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs a host name: set ingress.hosts={llm.example.com}" -}}
{{- end -}}
{{- range .Values.ingress.tls -}}
{{- range .hosts -}}
{{- if not (has . $.Values.ingress.hosts) -}}
{{- printf "ingress.tls has a certificate for %s, which is not among ingress.hosts: add it there" . | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs a Gateway to join: set httpRoute.parentRefs=[{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and .Values.service.loadBalancerSourceRanges (ne .Values.service.type "LoadBalancer") -}}
{{- printf "service.loadBalancerSourceRanges has no effect with service.type=%s: set service.type=LoadBalancer, or use networkPolicy.clients" .Values.service.type | fail -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkStore" -}}
{{- $url := dig "quotas" "store" "url" "" .Values.config | default "" -}}
{{- if and .Values.valkey.enabled $url -}}
{{- printf "valkey.enabled starts a Valkey, and config.quotas.store.url=%s names another: remove one of the two" $url | fail -}}
{{- end -}}
{{- if and .Values.valkey.passwordSecret.name .Values.configMap.create (not .Values.valkey.enabled) (not $url) -}}
{{- fail "valkey.passwordSecret is set, and there is no Valkey: set valkey.enabled=true, or config.quotas.store.url=redis://valkey:6379/0" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled $url (not (hasPrefix "unix:" $url)) (not .Values.networkPolicy.store) -}}
{{- printf "networkPolicy.enabled would cut the gateway off from %s: say where that is, such as networkPolicy.store=[{podSelector: {matchLabels: {app: valkey}}}]" $url | fail -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkDiscovery" -}}
{{- $namespaces := include "gateway.watchedNamespaces" . | fromJsonArray -}}
{{- if and $namespaces (not .Values.rbac.create) -}}
{{- printf "engines with `kubernetes` are found by EndpointSlices, which the gateway may not watch (in %s): set rbac.create=true, or use `dns`" (join ", " $namespaces) | fail -}}
{{- end -}}
{{- if and .Values.rbac.create (not $namespaces) -}}
{{- fail "rbac.create gives the pods a token, which no engine under config.engines needs: set rbac.create=false, or find an engine by `kubernetes`" -}}
{{- end -}}
{{- if and $namespaces .Values.networkPolicy.enabled (not .Values.networkPolicy.apiServer) -}}
{{- fail "networkPolicy.enabled would cut the gateway off from the Kubernetes API, by which engines with `kubernetes` are found: set networkPolicy.apiServer={10.0.0.1/32} (see `kubectl get endpoints kubernetes`), or use `dns`" -}}
{{- end -}}
{{- end -}}

{{/* What lies elsewhere, and which no rule of the NetworkPolicy would cover. */}}
{{- define "gateway.checkReach" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) -}}
{{- range $place, $url := dict "tracing.endpoint" (dig "tracing" "endpoint" "" .Values.config) "media.proxy" (dig "media" "proxy" "" .Values.config) -}}
{{- if $url -}}
{{- printf "networkPolicy.enabled would cut the gateway off from config.%s=%s: say where that is, such as networkPolicy.extraEgress=[{to: [{namespaceSelector: {}}], ports: [{port: %s}]}]" $place $url (regexFind ":[0-9]+" (urlParse $url).host | trimPrefix ":" | default "443") | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Files that the gateway reads or writes have to be in a volume: the rest of the container cannot be written to. */}}
{{- define "gateway.checkFolders" -}}
{{- $mounts := list "/tmp" -}}
{{- range .Values.extraVolumeMounts -}}{{- $mounts = append $mounts (trimSuffix "/" .mountPath) -}}{{- end -}}
{{- range $place, $path := dict "usage.file" (dig "usage" "file" "" .Values.config) "media.folder" (dig "media" "folder" "" .Values.config) -}}
{{- $found := not $path -}}
{{- range $mounts -}}{{- if hasPrefix (printf "%s/" .) (printf "%s/" $path) -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if not $found -}}
{{- printf "config.%s=%s is in no volume: add one to extraVolumes, and its mountPath, such as %s, to extraVolumeMounts" $place $path (dir $path) | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkImages" -}}
{{- range $place, $image := dict "image" .Values.image "valkey.image" .Values.valkey.image -}}
{{- if and (eq $image.tag "latest") (not $image.digest) -}}
{{- printf "%s.tag=latest is another image every day: name a version, or set %s.digest" $place $place | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gateway.checkModels" -}}
{{- $config := .Values.config -}}
{{- if not $config.engines -}}
{{- fail "config.engines is empty: name an engine, such as config.engines.default.dns.name=gemma-4b-engine, the Service of a release of the engine chart" -}}
{{- end -}}
{{- if not $config.models -}}
{{- fail "config.models is empty: name a model, such as config.models.gemma={engine: default, served_name: google/gemma-3-4b-it, family: gemma3}" -}}
{{- end -}}
{{- range $name, $model := $config.models -}}
{{- $engine := ($model | default dict).engine | default "default" -}}
{{- if and (not (or $model.targets $model.base)) (not (hasKey $config.engines $engine)) -}}
{{- printf "config.models.%s is a model of the engine %q, which is not among config.engines (%s): add it there, or set config.models.%s.engine" $name $engine (keys $config.engines | sortAlpha | join ", ") $name | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
