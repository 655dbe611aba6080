//! The fields of a v1 Pod that `berth run` does not honour, so that each is refused as what it is. Names: Kubernetes 1.37 API
//! reference, `core/v1`.

/// Beside `apiVersion`, `kind`, `metadata` and `spec`.
pub const POD: &[&str] = &["status"];

/// Of `metadata`.
pub const METADATA: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Of `spec`.
pub const SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "schedulingGroup",
    "serviceAccount",
    "serviceAccountName",
    "setHostnameAsFQDN",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
    "workloadRef",
];

/// Of `spec.securityContext`.
pub const POD_SECURITY: &[&str] =
    &["appArmorProfile", "fsGroup", "fsGroupChangePolicy", "seLinuxChangePolicy", "seLinuxOptions", "windowsOptions"];

/// Of a container.
pub const CONTAINER: &[&str] = &[
    "envFrom",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeDevices",
];

/// Of a container's `securityContext`.
pub const CONTAINER_SECURITY: &[&str] = &["appArmorProfile", "procMount", "seLinuxOptions", "windowsOptions"];

/// Of a container's `resources`.
pub const RESOURCES: &[&str] = &["claims"];

/// Of an environment variable.
pub const ENV: &[&str] = &["valueFrom"];

/// Of a volume mount.
pub const VOLUME_MOUNT: &[&str] = &["subPath", "subPathExpr"];

/// Of a volume: the sources that are no directory of this node.
pub const VOLUME: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// Of an `emptyDir`.
pub const EMPTY_DIR: &[&str] = &["sizeLimit"];
