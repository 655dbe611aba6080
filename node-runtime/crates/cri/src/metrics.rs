//! Calls by method and code, with latency.
use berth_model::{Error, Result};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::time::Instant;
use tonic::{Code, Status};

const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Figures of the CRI edge; cheap to clone.
#[derive(Clone)]
pub struct CallMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
}

impl CallMetrics {
    /// Creates and registers them. Errors: `Internal`, when the names are taken.
    pub fn new(registry: &Registry) -> Result<Self> {
        let broken = |e: prometheus::Error| Error::internal(format!("metrics: {e}"));
        let calls = Opts::new("berth_cri_calls_total", "CRI calls by method and gRPC code.");
        let seconds =
            HistogramOpts::new("berth_cri_call_seconds", "Time of CRI calls by method.").buckets(BUCKETS.to_vec());
        let this = Self {
            calls: IntCounterVec::new(calls, &["method", "code"]).map_err(broken)?,
            seconds: HistogramVec::new(seconds, &["method"]).map_err(broken)?,
        };
        registry.register(Box::new(this.calls.clone())).map_err(broken)?;
        registry.register(Box::new(this.seconds.clone())).map_err(broken)?;
        Ok(this)
    }

    /// Counts one call.
    pub(crate) async fn observe<T>(
        &self,
        method: &str,
        call: impl Future<Output = std::result::Result<T, Status>>,
    ) -> std::result::Result<T, Status> {
        let begun = Instant::now();
        let result = call.await;
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        self.calls.with_label_values(&[method, name(code)]).inc();
        self.seconds.with_label_values(&[method]).observe(begun.elapsed().as_secs_f64());
        if let Err(status) = &result
            && !matches!(code, Code::NotFound | Code::Unimplemented)
        {
            tracing::warn!(method, code = name(code), message = status.message(), "call failed");
        }
        result
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
