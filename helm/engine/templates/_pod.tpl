{{/* The labels of an engine's pods. Without versions: a new chart alone must not load the model anew. */}}
{{- define "engine.podLabels" -}}
{{ include "engine.selectorLabels" . }}
app.kubernetes.io/part-of: gemma-gateway
{{- with mergeOverwrite (dict) .Values.commonLabels .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An engine's pod. Takes (list root role): single, leader or worker. */}}
{{- define "engine.podTemplate" -}}
{{- $root := index . 0 -}}
{{- with $root -}}
metadata:
  labels:
    {{- include "engine.podLabels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: engine
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "engine.podIdentity" . | nindent 2 }}
  {{- with include "engine.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "engine.spread" $ | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "engine.graceSeconds" . }}
  {{- if or .Values.cache.download.enabled .Values.extraInitContainers }}
  initContainers:
    {{- if .Values.cache.download.enabled }}
    {{- include "engine.waitContainer" . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraInitContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    {{- include "engine.container" $ | nindent 4 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "engine.volumes" . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Who a pod is, and what it may do: the same for all pods of the chart. */}}
{{- define "engine.podIdentity" -}}
serviceAccountName: {{ include "engine.serviceAccountName" . }}
automountServiceAccountToken: false
# Variables of a Service called vllm would be taken for settings of vLLM.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Which nodes: also for the download Job, which binds the volume to a zone where the engine must be able to run. */}}
{{- define "engine.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* How replicas keep apart, and the runtime that shows them the GPUs. Takes (list root role). */}}
{{- define "engine.spread" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if $root.Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $root.Values.topologySpreadConstraints | nindent 2 }}
{{- else if ne (index . 1) "worker" }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "engine.servingLabels" $root | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The engine's container. Takes (list root role). */}}
{{- define "engine.container" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- with $root -}}
- name: engine
  image: {{ include "engine.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- include "engine.command" $ | trim | nindent 2 }}
  env:
    {{- include "engine.env" . | nindent 4 }}
    {{- if ne $role "single" }}
    # The address under which the other pods of the replica reach this one.
    - name: VLLM_HOST_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    {{- end }}
    {{- with .Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "engine.envFrom" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if ne $role "worker" }}
  ports:
    - name: http
      containerPort: {{ .Values.port }}
  {{- include "engine.probes" . | nindent 2 }}
  {{- end }}
  lifecycle:
    preStop:
      sleep:
        {{- /* A worker stays until its leader has answered the last request. */}}
        seconds: {{ add (include "engine.preStopSeconds" .) (ternary (ceil .Values.drainSeconds) 0 (eq $role "worker")) }}
  resources:
    {{- include "engine.resources" . | nindent 4 }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    {{- include "engine.volumeMounts" . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Requests and limits with the GPUs in them, which Kubernetes wants alike. */}}
{{- define "engine.resources" -}}
{{- $gpus := dict -}}
{{- with .Values.gpu.resource -}}{{- $_ := set $gpus . (include "engine.gpusPerPod" $ | int) -}}{{- end -}}
{{- $requests := merge (dict) $gpus .Values.resources.requests -}}
{{- $limits := merge (dict) $gpus .Values.resources.limits -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}

{{/* /health is 503 while the engine loads, warms up and drains. A drain comes with the pod's end, when the kubelet
looks no more. */}}
{{- define "engine.probes" -}}
startupProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: {{ .Values.probes.startup.periodSeconds }}
  timeoutSeconds: {{ .Values.probes.readiness.timeoutSeconds }}
  failureThreshold: {{ ceil (divf .Values.probes.startup.seconds .Values.probes.startup.periodSeconds) }}
readinessProbe:
  httpGet: {path: /health, port: http}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  httpGet: {path: /health, port: http}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
{{- end -}}
