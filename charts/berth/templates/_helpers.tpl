{{/* Names, labels, images and what operator and agent have in common. */}}

{{- define "berth.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "berth.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "berth.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "berth.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects pods: never changes in the life of a release. Argument: the root, the component. */}}
{{- define "berth.selector" -}}
app.kubernetes.io/name: {{ include "berth.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Argument: the root, the component. */}}
{{- define "berth.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "berth.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: berth
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods, beside what selects them: nothing that changes with each version of the chart, or every node's agent would start anew for nothing. */}}
{{- define "berth.podLabels" -}}
{{ include "berth.selector" . }}
app.kubernetes.io/part-of: berth
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image. Argument: the root, the image's values. */}}
{{- define "berth.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s/%s" ($root.Values.global.imageRegistry | default $image.registry) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "berth.operator.serviceAccount" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- .Values.operator.serviceAccount.name | default (printf "%s-operator" (include "berth.fullname" .)) -}}
{{- else -}}
{{- required "operator.serviceAccount.name must name an account where operator.serviceAccount.create is false: the default account is everybody's" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "berth.agent.serviceAccount" -}}
{{- if .Values.agent.serviceAccount.create -}}
{{- .Values.agent.serviceAccount.name | default (printf "%s-agent" (include "berth.fullname" .)) -}}
{{- else -}}
{{- required "agent.serviceAccount.name must name an account where agent.serviceAccount.create is false: the default account is everybody's" .Values.agent.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the hook before an uninstall has an account and rights of its own: where the chart makes both for the operator too. */}}
{{- define "berth.uninstall.ownAccount" -}}
{{- if and .Values.rbac.create .Values.operator.serviceAccount.create -}}yes{{- end -}}
{{- end -}}

{{/* Its account; else the operator's, who may read as much. */}}
{{- define "berth.uninstall.serviceAccount" -}}
{{- if include "berth.uninstall.ownAccount" . -}}
{{- printf "%s-uninstall" (include "berth.fullname" .) -}}
{{- else -}}
{{- include "berth.operator.serviceAccount" . -}}
{{- end -}}
{{- end -}}

{{/*
Annotations of what asks before an uninstall. All of it is made for the question and goes after it: what is of the release is gone once an uninstall
has failed half-way, and no later one could ask. Argument: the weight, by which Helm makes them in turn.
*/}}
{{- define "berth.uninstall.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* That of the restricted Pod Security Standard, and what the values add. */}}
{{- define "berth.operator.podSecurityContext" -}}
{{- $pod := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $pod .Values.operator.podSecurityContext) -}}
{{- end -}}

{{/* Priority class of a component. Argument: the root, the component, the system's class. */}}
{{- define "berth.priorityClass" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := (get $root.Values $component).priorityClassName -}}
{{- if $own -}}
{{- $own -}}
{{- else if $root.Values.priorityClasses.create -}}
{{- printf "%s-%s" (include "berth.fullname" $root) $component -}}
{{- else -}}
{{- index . 2 -}}
{{- end -}}
{{- end -}}

{{/*
The pod's way to the API server. Mounted by hand: the token that is mounted automatically is good for a year to whoever steals it
(kube-apiserver's --service-account-extend-token-expiration), this one for as long as the value says. Argument: seconds.
*/}}
{{- define "berth.token" -}}
- name: api
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: {{ . }}
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end -}}

{{- define "berth.tokenMount" -}}
- name: api
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}

{{/* Egress of a NetworkPolicy to names and to the API server. */}}
{{- define "berth.egress" -}}
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          k8s-app: kube-dns
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.apiServer }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Ingress of a NetworkPolicy to metrics and probes, for those that the values name and for `helm test`. */}}
{{- define "berth.ingress" -}}
- ports:
    - port: metrics
  {{- with .Values.networkPolicy.metricsFrom }}
  from:
    {{- toYaml . | nindent 4 }}
    - podSelector:
        matchLabels:
          {{- include "berth.selector" (list $ "test") | nindent 10 }}
  {{- end }}
{{- end -}}
