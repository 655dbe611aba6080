//! The D-Bus side of the systemd driver (org.freedesktop.systemd1(5)): transient scopes, their properties, their end.
//! Must not write cgroup files.
use crate::path::Unit;
use berth_model::{Error, ErrorKind, Resources, Result};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::sync::Mutex;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, Variant as Value};

/// How long systemd may take for a job or an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// "infinity" in systemd's limits.
const INFINITY: u64 = u64::MAX;
const PERIOD: u64 = 100_000;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

type Properties<'a> = Vec<(&'static str, Value<'a>)>;

/// One connection to the system bus, shared, and made again after it broke.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    connection: Mutex<Option<Connection>>,
}

impl Systemd {
    /// Makes a scope with this process in it and waits until it is there.
    pub(crate) async fn start_scope(&self, unit: &Unit, pid: u32, resources: &Resources) -> Result<()> {
        let what = format!("systemd scope {}", unit.scope);
        let mut result = self.try_start(unit, pid, resources).await;
        if let Err(Failure::Bus(e)) = &result
            && is_named(e, "UnitExists")
        {
            // Left over in the failed state by an earlier life of the same id.
            let _ = self.tell("ResetFailedUnit", &unit.scope).await;
            result = self.try_start(unit, pid, resources).await;
        }
        result.map_err(|e| e.explain(&what))
    }

    async fn try_start(&self, unit: &Unit, pid: u32, resources: &Resources) -> Result<(), Failure> {
        let mut properties: Properties<'_> = vec![
            ("Description", Value::from(format!("Berth container {}", unit.scope))),
            ("Slice", Value::from(unit.slice.as_str())),
            ("Delegate", Value::from(true)),
            ("PIDs", Value::from(vec![pid])),
            ("DefaultDependencies", Value::from(false)),
            // A scope that failed (OOM, time-out) must not stay behind.
            ("CollectMode", Value::from("inactive-or-failed")),
        ];
        for accounting in ["CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting"] {
            properties.push((accounting, Value::from(true)));
        }
        properties.extend(limits(resources));
        let aux: Vec<(&str, Properties<'_>)> = Vec::new();
        self.job("StartTransientUnit", &(unit.scope.as_str(), "replace", properties, aux)).await
    }

    /// Changes the limits of a scope until the next boot, so that a reload of systemd keeps them.
    pub(crate) async fn set_properties(&self, scope: &str, resources: &Resources) -> Result<()> {
        let properties = limits(resources);
        if properties.is_empty() {
            return Ok(());
        }
        let result = self.tell("SetUnitProperties", &(scope, true, properties)).await;
        result.map_err(|e| e.explain(&format!("systemd scope {scope}")))
    }

    /// Stops a scope and waits for its end. Fine if there is none.
    pub(crate) async fn stop(&self, scope: &str) -> Result<()> {
        let stopped = self.job("StopUnit", &(scope, "replace")).await;
        let _ = self.tell("ResetFailedUnit", &scope).await;
        match stopped {
            Err(Failure::Bus(e)) if is_named(&e, "NoSuchUnit") => Ok(()),
            result => result.map_err(|e| e.explain(&format!("systemd scope {scope}"))),
        }
    }

    /// Calls a method that queues a job, and waits for the job.
    async fn job<B: Body>(&self, method: &'static str, body: &B) -> Result<(), Failure> {
        let work = async {
            let connection = self.connected().await?;
            let rule = MatchRule::builder()
                .msg_type(zbus::message::Type::Signal)
                .sender(SYSTEMD)
                .interface(MANAGER)
                .member("JobRemoved")
                .build()?;
            // Before the call, or the answer to a fast job is missed.
            let mut removed = MessageStream::for_match_rule(rule, &connection, None).await?;
            let job: OwnedObjectPath = call(&connection, method, body).await?.body().deserialize()?;
            while let Some(message) = removed.next().await {
                let message = message?;
                let (_, path, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
                if path == job {
                    return if result == "done" { Ok(()) } else { Err(Failure::Job(result)) };
                }
            }
            Err(Failure::Bus(zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::UnexpectedEof.into()))))
        };
        self.watched(work).await
    }

    /// Calls a method whose answer does not matter.
    async fn tell<B: Body>(&self, method: &'static str, body: &B) -> Result<(), Failure> {
        self.watched(async { Ok(call(&self.connected().await?, method, body).await.map(drop)?) }).await
    }

    /// Runs with the time limit. A connection that failed below the protocol is given up.
    async fn watched<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let result = tokio::time::timeout(LIMIT, work).await.unwrap_or(Err(Failure::Late));
        if matches!(&result, Err(Failure::Late)) || matches!(&result, Err(Failure::Bus(e)) if !is_answer(e)) {
            *self.connection.lock().await = None;
        }
        result
    }

    async fn connected(&self) -> Result<Connection, zbus::Error> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::system().await?;
        // systemd sends JobRemoved to subscribers only.
        call(&connection, "Subscribe", &()).await?;
        Ok(slot.insert(connection).clone())
    }
}

/// What can be the body of a call.
trait Body: serde::Serialize + zbus::wire::DynamicType {}
impl<T: serde::Serialize + zbus::wire::DynamicType> Body for T {}

async fn call<B: Body>(connection: &Connection, method: &'static str, body: &B) -> Result<Message, zbus::Error> {
    connection.call_method(Some(SYSTEMD), "/org/freedesktop/systemd1", Some(MANAGER), method, body).await
}

#[derive(Debug)]
enum Failure {
    Bus(zbus::Error),
    Job(String),
    Late,
}

impl From<zbus::Error> for Failure {
    fn from(e: zbus::Error) -> Self {
        Self::Bus(e)
    }
}

impl Failure {
    fn explain(self, what: &str) -> Error {
        match self {
            Self::Bus(e) if is_answer(&e) => {
                Error::new(ErrorKind::FailedPrecondition, format!("{what}: systemd refused: {e}"))
            }
            Self::Bus(e) => Error::new(
                ErrorKind::Unavailable,
                format!("{what}: systemd cannot be reached on the system bus: {e}; running pods are not affected"),
            ),
            Self::Job(result) => {
                Error::new(ErrorKind::FailedPrecondition, format!("{what}: systemd's job ended as {result:?}"))
            }
            Self::Late => Error::new(
                ErrorKind::DeadlineExceeded,
                format!("{what}: systemd did not answer within {} s", LIMIT.as_secs()),
            ),
        }
    }
}

/// Whether systemd answered at all: some of the bus's own errors say that it did not.
fn is_answer(e: &zbus::Error) -> bool {
    use zbus::fdo::Error as Bus;
    match e {
        zbus::Error::MethodError(..) => true,
        zbus::Error::FDO(e) => !matches!(
            **e,
            Bus::ServiceUnknown(_)
                | Bus::NameHasNoOwner(_)
                | Bus::NoReply(_)
                | Bus::NoServer(_)
                | Bus::Disconnected(_)
                | Bus::Timeout(_)
                | Bus::TimedOut(_)
                | Bus::IOError(_)
                | Bus::NoNetwork(_)
                | Bus::ZBus(_)
        ),
        _ => false,
    }
}

fn is_named(e: &zbus::Error, name: &str) -> bool {
    matches!(e, zbus::Error::MethodError(full, _, _) if full.as_str().strip_prefix("org.freedesktop.systemd1.") == Some(name))
}

/// The limits that systemd knows, in its terms; what is not given is left out. (systemd.resource-control(5))
fn limits(r: &Resources) -> Properties<'static> {
    let bytes = |n: i64| u64::try_from(n).unwrap_or(INFINITY);
    let mut properties: Properties<'static> = Vec::new();
    if let Some(limit) = r.memory_limit {
        properties.push(("MemoryMax", Value::from(bytes(limit))));
    }
    let swap = match (r.memory_limit, r.memory_swap_limit) {
        (_, Some(swap)) if swap < 0 => Some(INFINITY),
        (Some(limit), Some(swap)) if limit >= 0 => Some(bytes(swap - limit)),
        _ => None,
    };
    if let Some(swap) = swap {
        properties.push(("MemorySwapMax", Value::from(swap)));
    }
    if let Some(shares) = r.cpu_shares {
        properties.push(("CPUWeight", Value::from(crate::shares_to_weight(shares))));
    }
    if let Some(period) = r.cpu_period {
        properties.push(("CPUQuotaPeriodUSec", Value::from(period)));
    }
    if let Some(quota) = r.cpu_quota {
        properties.push(("CPUQuotaPerSecUSec", Value::from(quota_per_second(quota, r.cpu_period.unwrap_or(PERIOD)))));
    }
    if let Some(pids) = r.pids {
        properties.push(("TasksMax", Value::from(pids)));
    }
    for (name, list) in [("AllowedCPUs", &r.cpuset_cpus), ("AllowedMemoryNodes", &r.cpuset_mems)] {
        if !list.is_empty() {
            properties.push((name, Value::from(bit_mask(list))));
        }
    }
    properties
}

/// CPU time per second in microseconds, rounded up to a whole percent: systemd keeps no finer value, and less than was asked
/// for would refuse quotas of groups below.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    let Ok(quota) = u64::try_from(quota) else { return INFINITY };
    let per_second = quota.saturating_mul(1_000_000) / period.max(1);
    per_second.div_ceil(10_000) * 10_000
}

/// A list such as `0-3,7`, checked before, as bits in bytes from the lowest up.
fn bit_mask(list: &str) -> Vec<u8> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else { continue };
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1u8 << (bit % 8);
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_systemds_terms() {
        let r = Resources {
            memory_limit: Some(1 << 27),
            memory_swap_limit: Some(1 << 27),
            cpu_quota: Some(50_500),
            cpu_period: Some(100_000),
            cpu_shares: Some(1024),
            pids: Some(7),
            cpuset_cpus: "0-1,9".into(),
            ..Resources::default()
        };
        let expected: Properties<'static> = vec![
            ("MemoryMax", Value::from(1u64 << 27)),
            ("MemorySwapMax", Value::from(0u64)),
            ("CPUWeight", Value::from(100u64)),
            ("CPUQuotaPeriodUSec", Value::from(100_000u64)),
            ("CPUQuotaPerSecUSec", Value::from(510_000u64)),
            ("TasksMax", Value::from(7u64)),
            ("AllowedCPUs", Value::from(vec![3u8, 2])),
        ];
        assert_eq!(limits(&r), expected);
        let none = Resources {
            memory_limit: Some(-1),
            memory_swap_limit: Some(-1),
            cpu_quota: Some(-1),
            ..Resources::default()
        };
        assert!(limits(&none).iter().all(|(_, value)| *value == Value::from(INFINITY)));
        assert_eq!(limits(&Resources::default()), vec![]);
    }
}
