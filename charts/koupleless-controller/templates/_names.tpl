{{/* The name of all objects of the namespace. A release may have dots in its name, or begin with a digit; no Service does. */}}
{{- define "controller.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $name -}}{{- $name = printf "controller-%s" $name -}}{{- end -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of objects outside of the namespace, where releases of other namespaces have theirs. */}}
{{- define "controller.wideName" -}}
{{- printf "%s-%s" .Release.Namespace (include "controller.name" .) -}}
{{- end -}}

{{- define "controller.account" -}}
{{- .Values.serviceAccount.name | default (include "controller.name" .) -}}
{{- end -}}

{{- define "controller.tokenSecret" -}}
{{- .Values.token.secret | default (include "controller.name" .) -}}
{{- end -}}

{{/* Labels that never change, as selectors of Deployments must not. */}}
{{- define "controller.selector" -}}
app.kubernetes.io/name: koupleless-controller
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "controller.labels" -}}
{{ include "controller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "controller.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
