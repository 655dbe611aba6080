//! Version: the API version is the constant that the kubelet compares with.
use berth_proto::cri as wire;

pub(crate) fn call() -> wire::VersionResponse {
    wire::VersionResponse {
        version: "0.1.0".to_owned(),
        // Prefix of container ids in pod status; it never changes.
        runtime_name: "berth".to_owned(),
        runtime_version: berth_engine::VERSION.to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}
