{{/* What follows from the values. Texts, as all that a template returns; "" is no. */}}

{{/* hf, pvc, oci or s3; path for a directory in the image. */}}
{{- define "engine.scheme" -}}
{{- if .Values.modelArtifacts.uri -}}{{ regexFind "^[a-z0-9]+" .Values.modelArtifacts.uri }}
{{- else if hasPrefix "/" .Values.model -}}path
{{- else -}}hf{{- end -}}
{{- end -}}

{{/* The uri without its scheme. */}}
{{- define "engine.address" -}}
{{- regexReplaceAll "^[a-z0-9]+://" (default .Values.model .Values.modelArtifacts.uri) "" -}}
{{- end -}}

{{/* The claim of a pvc:// uri. */}}
{{- define "engine.claim" -}}
{{- regexFind "^[^/]+" (include "engine.address" .) -}}
{{- end -}}

{{/* MODEL of the engine's command: an id on the hub, a directory or an address in a store. */}}
{{- define "engine.modelArgument" -}}
{{- $scheme := include "engine.scheme" . -}}
{{- $address := include "engine.address" . -}}
{{- if eq $scheme "pvc" -}}/models{{ regexFind "/.*$" $address }}
{{- else if eq $scheme "oci" -}}{{ printf "/models/%s" .Values.modelArtifacts.ociPath | trimSuffix "/" }}
{{- else if eq $scheme "s3" -}}s3://{{ $address }}
{{- else -}}{{ $address }}{{- end -}}
{{- end -}}

{{/* Whether the test shows the model an image: true or false. Without being told, unless the name is of one that is
blind, as gateway.engine.gemmas has it; a test compares. */}}
{{- define "engine.triesImage" -}}
{{- $isBlind := regexMatch "gemma-3-(270m|1b)" (printf "%s %s" .Values.model .Values.modelArtifacts.uri | lower) -}}
{{- .Values.test.image | toString | default (toString (not $isBlind)) -}}
{{- end -}}

{{/* GPUs of one replica. */}}
{{- define "engine.gpus" -}}
{{- with .Values.parallelism -}}{{ mul .tensor .pipeline .data }}{{- end -}}
{{- end -}}

{{/* GPUs of one pod. */}}
{{- define "engine.gpusPerPod" -}}
{{- div (include "engine.gpus" .) .Values.multiNode.nodes -}}
{{- end -}}

{{/* Whether a replica is several pods. */}}
{{- define "engine.isMultiNode" -}}
{{- if gt (int .Values.multiNode.nodes) 1 -}}yes{{- end -}}
{{- end -}}

{{/* Whether something else decides on the number of replicas. */}}
{{- define "engine.isScaled" -}}
{{- if or .Values.hpa.enabled .Values.keda.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The most pods that there may be at once, those of a rolling update aside. */}}
{{- define "engine.maxPods" -}}
{{- $replicas := .Values.replicas -}}
{{- if .Values.hpa.enabled -}}{{- $replicas = .Values.hpa.maxReplicas -}}{{- end -}}
{{- if .Values.keda.enabled -}}{{- $replicas = .Values.keda.maxReplicas -}}{{- end -}}
{{- mul $replicas .Values.multiNode.nodes -}}
{{- end -}}

{{/* Whether the engine's own pods load from the hub or a store. */}}
{{- define "engine.isDownloading" -}}
{{- $scheme := include "engine.scheme" . -}}
{{- if or (eq $scheme "s3") (and (eq $scheme "hf") (not .Values.cache.download.enabled)) -}}yes{{- end -}}
{{- end -}}

{{/* Whether the cache is a claim that one node has at a time. */}}
{{- define "engine.isBoundToNode" -}}
{{- with .Values.cache -}}
{{- if and .enabled (not .existingClaim) (ne .accessMode "ReadWriteMany") -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* The claim of the cache. */}}
{{- define "engine.cacheClaim" -}}
{{- default (include "engine.fullname" .) .Values.cache.existingClaim -}}
{{- end -}}

{{/* A file of the cache whose presence says that the model is there, whole: other models have other names. */}}
{{- define "engine.mark" -}}
{{- $wanted := list (include "engine.address" .) .Values.modelArtifacts.revision .Values.cache.download.also -}}
/var/cache/huggingface/complete/{{ toJson $wanted | sha256sum | trunc 16 }}
{{- end -}}

{{/* Kind, API version and name of what runs the pods, for those that scale it. The LeaderWorkerSet has a name of its
own, because the controller makes a Service of that name. */}}
{{- define "engine.workload" -}}
{{- if include "engine.isMultiNode" . -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
name: {{ include "engine.fullname" . }}-group
{{- else -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "engine.fullname" . }}
{{- end -}}
{{- end -}}

{{/* What selects the pods that answer: of a group only the leader does. */}}
{{- define "engine.servingLabels" -}}
{{ include "engine.selectorLabels" . }}
{{- if include "engine.isMultiNode" . }}
leaderworkerset.sigs.k8s.io/worker-index: "0"
{{- end }}
{{- end -}}

{{/* Seconds between the order to end and SIGTERM, in which Service and gateway forget the pod. */}}
{{- define "engine.preStopSeconds" -}}5{{- end -}}

{{/* The grace period of a pod in seconds: preStop, the drain, and 15 s in which vLLM takes itself down. */}}
{{- define "engine.graceSeconds" -}}
{{- add (include "engine.preStopSeconds" .) (ceil .Values.drainSeconds) 15 -}}
{{- end -}}
