{{- define "kafka.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: odradek
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What selectors look for; never to be changed. */}}
{{- define "kafka.selector" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kafka.secret" -}}
{{- .Values.existingSecret | default (printf "%s-cluster" .Values.name) -}}
{{- end }}

{{- define "kafka.voters" -}}
{{- $name := .Values.name -}}
{{- $set := ternary (printf "%s-controller" $name) $name .Values.controllers.separate -}}
{{- $base := ternary 100 0 .Values.controllers.separate | int -}}
{{- range $i, $_ := until (int .Values.controllers.replicas) -}}
{{- if $i }},{{ end -}}
{{ add $base $i }}@{{ $set }}-{{ $i }}.{{ $set }}-headless.{POD_NAMESPACE}.svc.cluster.local:9093
{{- end -}}
{{- end }}

{{- define "kafka.advertised" -}}
PLAINTEXT://{POD_NAME}.{{ .Values.name }}-headless.{POD_NAMESPACE}.svc.cluster.local:9092
{{- if eq .Values.external.type "NodePort" -}}
,EXTERNAL://{HOST_IP}:{ordinal+{{ .Values.external.nodePort }}}
{{- else if eq .Values.external.type "LoadBalancer" -}}
,EXTERNAL://{{ .Values.external.host }}:9094
{{- end -}}
{{- end }}

{{- /* Settings of all nodes. Keys of server.properties become variables as those of Kafka's image. */}}
{{- define "kafka.env" -}}
{{- $replication := min 3 (int .Values.replicas) | int -}}
{{- $minIsr := max 1 (sub $replication 1) | int -}}
{{- $external := ternary "EXTERNAL://:9094," "" (ne .Values.external.type "") -}}
KAFKA_PROCESS_ROLES: {{ ternary "broker" "broker,controller" .Values.controllers.separate | quote }}
KAFKA_CONTROLLER_QUORUM_VOTERS: {{ include "kafka.voters" . | quote }}
KAFKA_CONTROLLER_LISTENER_NAMES: CONTROLLER
KAFKA_LISTENERS: {{ printf "PLAINTEXT://:9092,%s%s" $external (ternary "" "CONTROLLER://:9093" .Values.controllers.separate) | trimSuffix "," | quote }}
KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: {{ printf "PLAINTEXT:PLAINTEXT,%sCONTROLLER:PLAINTEXT" (ternary "EXTERNAL:PLAINTEXT," "" (ne .Values.external.type "")) }}
KAFKA_ADVERTISED_LISTENERS: {{ include "kafka.advertised" . | quote }}
KAFKA_INTER_BROKER_LISTENER_NAME: PLAINTEXT
KAFKA_DEFAULT_REPLICATION_FACTOR: {{ $replication | quote }}
KAFKA_MIN_INSYNC_REPLICAS: {{ $minIsr | quote }}
KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: {{ $replication | quote }}
KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: {{ $replication | quote }}
KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: {{ $minIsr | quote }}
CLUSTER_ID_FILE: /etc/kafka/secrets/cluster-id
ODRADEK_INTERNAL_SECRET_FILE: /etc/kafka/secrets/internal-secret
ODRADEK_METRICS_PORT: "9644"
# A restart would not help: /readyz says what is missing.
KAFKA_INITIAL_BROKER_REGISTRATION_TIMEOUT_MS: "2147483647"
ODRADEK_LOG_FORMAT: json
ODRADEK_STOP_GRACE_SECONDS: {{ sub (int .Values.stop.graceSeconds) (int .Values.stop.waitSeconds) | quote }}
{{- if eq .Values.zoneAsRack "node-label" }}
KAFKA_BROKER_RACK_FILE: /etc/kafka/rack/zone
{{- end }}
{{- if .Values.zoneAsRack }}
KAFKA_REPLICA_SELECTOR_CLASS: org.apache.kafka.common.replica.RackAwareReplicaSelector
{{- end }}
{{- end }}

{{- define "kafka.config" -}}
{{- $env := include "kafka.env" . | fromYaml -}}
{{- range $key, $value := .Values.config -}}
{{- $kind := ternary "ODRADEK_" "KAFKA_" (hasPrefix "odradek." $key) -}}
{{- $name := $key | trimPrefix "odradek." | replace "." "_" | upper -}}
{{- $text := toString $value -}}
{{- if kindIs "float64" $value -}}
{{- if eq (float64 (int64 $value)) $value -}}
{{- $text = toString (int64 $value) -}}{{- /* not 1.073741824e+09 */ -}}
{{- end -}}
{{- end -}}
{{- $_ := set $env (printf "%s%s" $kind $name) $text -}}
{{- end -}}
{{- range $i, $key := keys $env | sortAlpha }}
{{- if $i }}
{{ end }}
{{- $key }}: {{ get $env $key | toString | quote }}
{{- end }}
{{- end }}

{{- define "kafka.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- define "kafka.probes" -}}
# The logs are open. After a crash that may take as long as reading what was not flushed.
startupProbe:
  httpGet: {path: /startupz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 1800
# Every replica in sync; an update waits for it.
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
# The process answers; depends on no other pod.
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
lifecycle:
  preStop:
    exec:
      command: ["odradek", "health", "--may-stop", "--wait", {{ .Values.stop.waitSeconds | quote }}]
{{- end }}

{{- /* A StatefulSet: dict "root" $ "component" "broker" or "controller". */}}
{{- define "kafka.statefulset" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $broker := eq .component "broker" -}}
{{- $name := ternary $values.name (printf "%s-controller" $values.name) $broker -}}
{{- $storage := ternary $values.storage $values.controllers.storage $broker -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kafka.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  serviceName: {{ $name }}-headless
  replicas: {{ ternary $values.replicas $values.controllers.replicas $broker }}
  # All at once: none can be ready before a majority runs. Updates go one by one all the same.
  podManagementPolicy: Parallel
  minReadySeconds: {{ $values.minReadySeconds }}
  revisionHistoryLimit: 5
  updateStrategy:
    type: RollingUpdate
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  selector:
    matchLabels:
      {{- include "kafka.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  template:
    metadata:
      labels:
        {{- include "kafka.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        # A change of settings rolls the pods.
        checksum/config: {{ include "kafka.config" $root | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $values.name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $values.stop.graceSeconds }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      affinity:
        podAntiAffinity:
          {{- if eq $values.antiAffinity "required" }}
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "kafka.selector" $root | nindent 18 }}
                  app.kubernetes.io/component: {{ .component }}
          {{- else }}
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    {{- include "kafka.selector" $root | nindent 20 }}
                    app.kubernetes.io/component: {{ .component }}
          {{- end }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: topology.kubernetes.io/zone
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "kafka.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
      {{- if and $broker (eq $values.zoneAsRack "node-label") }}
      initContainers:
        - name: zone
          image: {{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: ["odradek", "pod", "--zone", "/etc/kafka/rack/zone"]
          env:
            - name: NODE_NAME
              valueFrom:
                fieldRef:
                  fieldPath: spec.nodeName
          resources:
            requests: {cpu: 50m, memory: 64Mi}
            limits: {memory: 128Mi}
          securityContext:
            {{- include "kafka.container.security" $root | nindent 12 }}
          volumeMounts:
            - name: rack
              mountPath: /etc/kafka/rack
            - name: token
              mountPath: /var/run/secrets/kubernetes.io/serviceaccount
              readOnly: true
      {{- end }}
      containers:
        - name: kafka
          image: {{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          # node.id is the ordinal of the pod{{ if not $broker }}, and 100{{ end }}.
          command: ["odradek", "pod"]
          env:
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: POD_NAMESPACE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.namespace
            {{- if $broker }}
            - name: HOST_IP
              valueFrom:
                fieldRef:
                  fieldPath: status.hostIP
            {{- if eq $values.zoneAsRack "pod-label" }}
            - name: POD_ZONE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.labels['topology.kubernetes.io/zone']
            {{- end }}
            {{- else }}
            - name: ODRADEK_NODE_ID_BASE
              value: "100"
            - name: KAFKA_PROCESS_ROLES
              value: controller
            - name: KAFKA_LISTENERS
              value: CONTROLLER://:9093
            {{- end }}
          envFrom:
            - configMapRef:
                name: {{ $values.name }}-env
          ports:
            {{- if $broker }}
            - name: clients
              containerPort: 9092
            {{- if $values.external.type }}
            - name: external
              containerPort: 9094
            {{- end }}
            {{- end }}
            - name: internal
              containerPort: 9093
            - name: metrics
              containerPort: 9644
          {{- include "kafka.probes" $root | nindent 10 }}
          resources:
            {{- toYaml (ternary $values.resources $values.controllers.resources $broker) | nindent 12 }}
          securityContext:
            {{- include "kafka.container.security" $root | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /var/lib/kafka/data
            - name: secrets
              mountPath: /etc/kafka/secrets
              readOnly: true
            - name: tmp
              mountPath: /tmp
            {{- if and $broker (eq $values.zoneAsRack "node-label") }}
            - name: rack
              mountPath: /etc/kafka/rack
              readOnly: true
            {{- end }}
      volumes:
        - name: secrets
          secret:
            secretName: {{ include "kafka.secret" $root }}
            defaultMode: 0440
        - name: tmp
          emptyDir:
            sizeLimit: 64Mi
        {{- if and $broker (eq $values.zoneAsRack "node-label") }}
        - name: rack
          emptyDir:
            sizeLimit: 1Mi
        - name: token
          projected:
            defaultMode: 0440
            sources:
              - serviceAccountToken:
                  path: token
                  expirationSeconds: 600
              - configMap:
                  name: kube-root-ca.crt
                  items:
                    - key: ca.crt
                      path: ca.crt
        {{- end }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: ["ReadWriteOnce"]
        {{- with $storage.className }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $storage.size }}
{{- end }}

{{- /* Annotations of a service for clients outside: dict "root" $ "host" its name. None of them is no annotations. */}}
{{- define "kafka.outside" -}}
{{- $all := merge (dict) .root.Values.external.annotations -}}
{{- if and .host (eq .root.Values.external.type "LoadBalancer") -}}
{{- $_ := set $all "external-dns.alpha.kubernetes.io/hostname" .host -}}
{{- end -}}
{{- with $all -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}
