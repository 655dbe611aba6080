//! The bridge network as the engine uses it: async, idempotent, never half done.
//!
//! Each call runs on a thread that may block, to its end, even if its caller goes away. Two locks: `host` (kernel) before
//! `pool` (addresses and ports); never the other way round. Must not: be called before [`Bridge::ensure`], except `reconcile`
//! and `destroy`.
use super::config::{BridgeConfig, mac_of};
use super::host::{Host, POD_INTERFACE};
use super::lease::{Attachment, Lease, Leases};
use super::pool::{Pool, Reservation, host_ports};
use crate::netlink::RouteSocket;
use crate::netns;
use berth_model::{Error, PodId, PortMapping, Result, ResultExt};
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bridge network. Cheap to clone.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

/// What [`Bridge::reconcile`] removed; empty when nothing had leaked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Ids of pods whose leases were released, and keys that hold no readable lease.
    pub leases: Vec<String>,
    /// Interfaces of the node.
    pub interfaces: Vec<String>,
    /// Elements of nftables sets, as `nft` shows them.
    pub elements: Vec<String>,
}

impl Reconciled {
    /// Had nothing leaked?
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.interfaces.is_empty() && self.elements.is_empty()
    }
}

struct Inner {
    config: BridgeConfig,
    leases: Arc<dyn Leases>,
    host: Mutex<Host>,
    pool: Mutex<Pool>,
    /// Pods whose attachment is under way.
    busy: Mutex<HashSet<PodId>>,
    /// Keys of the store whose value is no lease.
    unreadable: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Bridge {
    /// Reads the leases and opens the sockets; the node is not changed.
    /// Errors: `InvalidArgument` naming a field of the configuration; `FailedPrecondition` when the subnet overlaps with a
    /// route of the node that is not the bridge's own (the message names it), or without CAP_NET_ADMIN.
    pub async fn open(config: BridgeConfig, leases: Arc<dyn Leases>) -> Result<Self> {
        blocking(move || {
            config.validate()?;
            let host = Host::open(&config)?;
            let (mut good, mut unreadable) = (Vec::new(), Vec::new());
            for (key, value) in leases.all()? {
                match Lease::decode(&key, &value) {
                    Ok(lease) => good.push(lease),
                    Err(e) => {
                        tracing::warn!(key, error = %e, "address lease cannot be read; it is ignored");
                        unreadable.push(key);
                    }
                }
            }
            let pool = Mutex::new(Pool::new(&config, good));
            let (host, busy, unreadable) = (Mutex::new(host), Mutex::default(), Mutex::new(unreadable));
            Ok(Self { inner: Arc::new(Inner { config, leases, host, pool, busy, unreadable }) })
        })
        .await
    }

    /// Brings the bridge (up, with the gateway's address), `net.ipv4.ip_forward`, `route_localnet` of the bridge, and the
    /// nftables table with all host ports to what they should be. Idempotent; interrupts no traffic.
    /// Errors: as `open`; and whatever the kernel refuses, in its words.
    pub async fn ensure(&self) -> Result<()> {
        self.run(|inner| {
            let mut host = inner.host();
            let ports = inner.pool().host_ports();
            host.ensure(&ports)
        })
        .await
    }

    /// Sets the largest packet for pods that are attached from now on; `None` is that of the default route's interface. Pods that are
    /// attached keep theirs.
    pub async fn set_mtu(&self, mtu: Option<u32>) -> Result<()> {
        self.run(move |inner| inner.host().set_mtu(mtu)).await
    }

    /// Gives a pod its network: an address (leased durably first), `eth0` and loopback up in its network namespace, the
    /// default route, and its host ports. All of it or nothing. A pod that has a lease keeps its address.
    /// Errors: `AlreadyExists` when another pod has a host port (the message has that pod's id), `ResourceExhausted` when
    /// no address is left, `InvalidArgument` for a mapping that cannot work, `NotFound` without the namespace.
    pub async fn attach(&self, pod: &PodId, netns: &Path, ports: &[PortMapping]) -> Result<Attachment> {
        let (pod, netns, ports) = (pod.clone(), netns.to_owned(), ports.to_vec());
        self.run(move |inner| {
            let file = netns::open(&netns)?;
            let mut inside = netns::route_socket(&file, &netns)?;
            let busy = Busy::new(inner, &pod);
            let reservation = inner.pool().reserve(&pod, &ports)?;
            let result = inner.build(&pod, &reservation, &file, &mut inside);
            if result.is_err() {
                inner.undo(&pod, &reservation.lease);
            }
            drop(busy);
            result.context(|| format!("network of pod {}", pod.short()))
        })
        .await
    }

    /// Takes a pod's host ports and address back. Idempotent; needs no namespace. The veth pair goes with the pod's network
    /// namespace, which the caller drops; the kernel needs 20 ms and more for it, and nobody has to wait for that.
    /// The lease says all that is to be undone; what the pod's record says counts where the lease is lost.
    pub async fn detach(&self, pod: &PodId, attachment: Option<&Attachment>) -> Result<()> {
        let (pod, recorded) = (pod.clone(), attachment.map(|a| a.host_interface.clone()));
        self.run(move |inner| {
            if let Some(interface) = recorded {
                inner.host().leaves(&interface);
            }
            inner.detach(&pod)
        })
        .await
    }

    /// Removes leases, interfaces on the bridge and nftables elements that belong to none of the `live` pods. `live` has
    /// every pod that is not detached, also those under creation.
    pub async fn reconcile(&self, live: &[PodId]) -> Result<Reconciled> {
        let live: HashSet<PodId> = live.iter().cloned().collect();
        self.run(move |inner| inner.reconcile(&live)).await
    }

    /// Removes everything of this network from the node: table, interfaces of pods, bridge, leases; and restores
    /// `net.ipv4.ip_forward` if no other bridge of this product needs it. `ensure` brings it back.
    pub async fn destroy(&self) -> Result<()> {
        self.run(|inner| {
            let mut host = inner.host();
            host.destroy()?;
            for (key, _) in inner.leases.all()? {
                inner.leases.remove(&key)?;
            }
            *inner.pool() = Pool::new(&inner.config, Vec::new());
            Ok(())
        })
        .await
    }

    /// Is the network in working order, as the kernel sees it? Otherwise a sentence for the condition NetworkReady.
    pub async fn ready(&self) -> Result<(), String> {
        self.run(|inner| Ok(inner.host().ready())).await.unwrap_or_else(|e| Err(e.to_string()))
    }

    /// For each family of addresses: its name in figures, how many addresses pods can have, how many have one.
    pub fn addresses(&self) -> Vec<(&'static str, u64, u64)> {
        let subnet = self.inner.config.subnet;
        // Neither the subnet's own address, nor the gateway, nor the broadcast address.
        let size = u64::from(subnet.broadcast().to_bits()) - u64::from(subnet.network().to_bits()) - 2;
        let used = u64::try_from(self.inner.pool().leases().count()).unwrap_or(u64::MAX);
        vec![("ipv4", size, used)]
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(
        &self,
        pod: &PodId,
        reservation: &Reservation,
        netns: &File,
        inside: &mut RouteSocket,
    ) -> Result<Attachment> {
        let lease = &reservation.lease;
        self.leases.put(pod.as_str(), &lease.encode()?).context(|| "record the address lease")?;
        let mut host = self.host();
        if let Some(former) = &reservation.former_interface {
            host.remove_link(former)?;
        }
        host.connect(&lease.host_interface, lease.address, netns, inside)?;
        if !lease.ports.is_empty() {
            let all = self.pool().host_ports();
            host.add_ports(&host_ports(lease), &all)?;
        }
        let mac = mac_of(lease.address).map(|b| format!("{b:02x}")).join(":");
        let net = Ipv4Net::new_assert(lease.address, self.config.subnet.prefix_len());
        Ok(Attachment {
            interface: POD_INTERFACE.to_owned(),
            host_interface: lease.host_interface.clone(),
            mac,
            addresses: vec![IpNet::V4(net)],
            gateway: self.config.gateway().into(),
        })
    }

    /// Undoes a failed attachment; what cannot be undone now keeps its lease, and is reconciled later.
    fn undo(&self, pod: &PodId, lease: &Lease) {
        let removed = self.host().remove_link(&lease.host_interface);
        if let Err(e) = removed.and_then(|_| self.detach(pod)) {
            tracing::warn!(%pod, error = %e, "failed network attachment cannot be undone now");
        }
    }

    fn detach(&self, pod: &PodId) -> Result<()> {
        let mut host = self.host();
        let (lease, remaining) = {
            let mut pool = self.pool();
            let Some(lease) = pool.get(pod).cloned() else {
                return Ok(());
            };
            pool.drop_ports(pod);
            (lease, pool.host_ports())
        };
        if !lease.ports.is_empty() {
            host.remove_ports(&host_ports(&lease), &remaining)?;
        }
        host.leaves(&lease.host_interface);
        drop(host);
        self.leases.remove(pod.as_str()).context(|| "remove the address lease")?;
        self.pool().release(pod);
        Ok(())
    }

    fn reconcile(&self, live: &HashSet<PodId>) -> Result<Reconciled> {
        let mut done = Reconciled::default();
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stale: Vec<(PodId, String)> = {
            let pool = self.pool();
            let leaked = pool.leases().filter(|(pod, _)| !live.contains(pod) && !busy.contains(pod));
            leaked.map(|(pod, lease)| (pod.clone(), lease.host_interface.clone())).collect()
        };
        for (pod, interface) in stale {
            self.detach(&pod)?;
            if self.host().remove_link(&interface)? {
                done.interfaces.push(interface);
            }
            done.leases.push(pod.to_string());
        }
        let unreadable = std::mem::take(&mut *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner));
        for key in unreadable {
            self.leases.remove(&key)?;
            done.leases.push(key);
        }
        let mut host = self.host();
        let (owned, ports) = {
            let pool = self.pool();
            (pool.leases().map(|(_, lease)| lease.host_interface.clone()).collect(), pool.host_ports())
        };
        done.interfaces.extend(host.remove_strays(&owned)?);
        done.elements = host.sync_ports(&ports)?;
        Ok(done)
    }
}

/// Marks a pod as being attached, for as long as it lives.
struct Busy<'a> {
    inner: &'a Inner,
    pod: PodId,
}

impl<'a> Busy<'a> {
    fn new(inner: &'a Inner, pod: &PodId) -> Self {
        inner.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.clone());
        Self { inner, pod: pod.clone() }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pod);
    }
}

/// Runs work on a thread that may block, to its end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a task of the built-in network ended early: {e}")))?
}
