{{/* Labels of everything that the chart makes. */}}
{{- define "pyjiva.labels" -}}
app.kubernetes.io/name: pyjiva
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: openebs
{{- end }}

{{- define "pyjiva.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What a pod of Maya is, but for its container's arguments. Takes (dict "root" $ "name" NAME "values" VALUES). */}}
{{- define "pyjiva.podSpec" -}}
serviceAccountName: pyjiva-{{ .name }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        app.kubernetes.io/instance: {{ .root.Release.Name }}
        app.kubernetes.io/component: {{ .name }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* What holds for a container of Maya. */}}
{{- define "pyjiva.container" -}}
image: {{ include "pyjiva.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  - name: OPENEBS_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  # The holder's name in the Lease.
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- range $variable := list "CONTROLLER_IMAGE" "REPLICA_IMAGE" }}
  - name: OPENEBS_IO_JIVA_{{ $variable }}
    value: {{ include "pyjiva.image" $.root }}
  {{- end }}
  - name: OPENEBS_IO_VOLUME_MONITOR_IMAGE
    value: {{ include "pyjiva.image" .root }}
  - name: OPENEBS_IO_HELPER_IMAGE
    value: {{ include "pyjiva.image" .root }}
  {{- with .root.Values.image.pullSecrets }}
  # Of volumes' pods too: they have to be where these run.
  - name: OPENEBS_IO_IMAGE_PULL_SECRETS
    value: {{ join "," . | quote }}
  {{- end }}
  - name: OPENEBS_IO_JIVA_POOL_DIR
    value: {{ .root.Values.volumes.poolDir }}
  - name: OPENEBS_IO_JIVA_REPLICA_COUNT
    value: {{ .root.Values.volumes.replicaCount | quote }}
ports:
  - name: health
    containerPort: 5657
# A pod that waits for the Lease is ready too: it serves, and can take over.
livenessProbe:
  httpGet: {path: /healthz, port: health}
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end }}

{{/* A PodDisruptionBudget where there is more than one pod. */}}
{{- define "pyjiva.budget" -}}
{{- if gt (int .values.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: maya-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "pyjiva.labels" .root | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/instance: {{ .root.Release.Name }}
      app.kubernetes.io/component: {{ .name }}
{{- end }}
{{- end }}
