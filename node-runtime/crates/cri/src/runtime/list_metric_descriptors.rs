//! ListMetricDescriptors: a constant list.
use crate::encode::descriptors;
use berth_proto::cri as wire;

pub(crate) fn call() -> wire::ListMetricDescriptorsResponse {
    wire::ListMetricDescriptorsResponse { descriptors: descriptors() }
}
