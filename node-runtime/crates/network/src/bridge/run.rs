//! The bridge network as the engine uses it: async, idempotent, never half done.
//!
//! Each call runs on a thread that may block, to its end, even if its caller goes away. Two locks: `host` (kernel) before
//! `pool` (addresses and ports); never the other way round. What is told without blocking is `seen`, whose lock is never held
//! over another one or over the kernel's work. Must not: be called before [`Bridge::ensure`], except `reconcile`
//! and `destroy`.
use super::config::BridgeConfig;
use super::connect::POD_INTERFACE;
use super::host::Host;
use super::lease::{Attachment, Lease, Leases, PodNetwork};
use super::pool::{Pool, PoolUsage, Reservation};
use super::ports::host_ports;
use super::subnet::{self, Taken};
use crate::bandwidth::Bandwidth;
use crate::netlink::RouteSocket;
use crate::netns;
use crate::nft::ForwardDrop;
use berth_model::{Error, ErrorKind, PodId, Result, ResultExt};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often a network with derived subnets starts again when others took its subnet meanwhile.
const STARTS: usize = 3;

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
    leases: Arc<dyn Leases>,
    host: Mutex<Host>,
    /// What of `host` is told, as of its last change.
    seen: Mutex<Seen>,
    pool: Mutex<Pool>,
    /// Pods whose attachment is under way.
    busy: Mutex<HashSet<PodId>>,
    /// Keys of the store whose value is no lease.
    unreadable: Mutex<Vec<String>>,
}

/// What of a host is told to whoever must not wait for it.
struct Seen {
    config: BridgeConfig,
    firewalls: Vec<ForwardDrop>,
}

impl Seen {
    fn of(host: &Host) -> Self {
        Self { config: host.config.clone(), firewalls: host.firewalls.clone() }
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

impl Bridge {
    /// Opens a network and sets it up. With derived subnets, another one is chosen if somebody took ours meanwhile.
    /// Errors: as [`Self::open`] and [`Self::ensure`].
    pub async fn start(config: BridgeConfig, leases: Arc<dyn Leases>) -> Result<Self> {
        let mut left = if config.derived_from.is_some() { STARTS } else { 1 };
        loop {
            let bridge = Self::open(config.clone(), Arc::clone(&leases)).await?;
            left -= 1;
            match bridge.ensure().await {
                Err(e) if left > 0 && e.kind() == ErrorKind::FailedPrecondition => {
                    tracing::warn!(error = %e, "the built-in network looks for another subnet");
                }
                Err(e) => return Err(e),
                Ok(()) => return Ok(bridge),
            }
        }
    }

    /// Reads the leases and opens the sockets; the node is not changed.
    /// Errors: `InvalidArgument` naming a field of the configuration; `FailedPrecondition` when the subnet overlaps with a
    /// route of the node that is not the bridge's own (the message names it), or without CAP_NET_ADMIN.
    pub async fn open(config: BridgeConfig, leases: Arc<dyn Leases>) -> Result<Self> {
        blocking(move || {
            config.validate()?;
            let (mut good, mut unreadable, mut recorded) = (Vec::new(), Vec::new(), None);
            for (key, value) in leases.all()? {
                if key == subnet::KEY {
                    recorded = Taken::decode(&value);
                    continue;
                }
                match Lease::decode(&key, &value) {
                    Ok(lease) => good.push(lease),
                    Err(e) => {
                        tracing::warn!(key, error = %e, "address lease cannot be read; it is ignored");
                        unreadable.push(key);
                    }
                }
            }
            let hold = !good.is_empty();
            // Before subnets were recorded, that of the leases was the one that follows from the root.
            let recorded = recorded.or_else(|| hold.then(|| Taken::of(&config)));
            let mut host = Host::open(&config, recorded.clone(), hold)?;
            host.keep_strays(good.iter().flat_map(|(_, lease)| lease.addresses()));
            let taken = Taken::of(&host.config);
            if config.derived_from.is_some() && recorded.as_ref() != Some(&taken) {
                leases.put(subnet::KEY, &taken.encode()?).context(|| "record the subnet")?;
            }
            let pool = Mutex::new(Pool::new(&host.config, good));
            let (seen, host) = (Mutex::new(Seen::of(&host)), Mutex::new(host));
            let (busy, unreadable) = (Mutex::default(), Mutex::new(unreadable));
            Ok(Self { inner: Arc::new(Inner { leases, host, seen, pool, busy, unreadable }) })
        })
        .await
    }

    /// The configuration in force, with the subnets that were chosen.
    pub fn config(&self) -> BridgeConfig {
        self.inner.seen().config.clone()
    }

    /// How many addresses there are for pods, and how many are in use.
    pub fn usage(&self) -> PoolUsage {
        self.inner.pool().usage()
    }

    /// The chains of the node's firewalls that drop what pods send out of the node and what comes for them, as
    /// [`Self::ensure`] and [`Self::maintain`] saw them last. Iptables' own is not among them: it is opened.
    pub fn firewalls(&self) -> Vec<ForwardDrop> {
        self.inner.seen().firewalls.clone()
    }

    /// Brings the bridge (up, with the gateway's addresses), forwarding and the other sysctls, and the nftables tables with all
    /// host ports to what they should be. Idempotent; interrupts no traffic.
    /// Errors: as `open`; and whatever the kernel refuses, in its words.
    pub async fn ensure(&self) -> Result<()> {
        self.run(|inner| {
            let mut host = inner.host();
            let (ports, owned) = inner.expected();
            let done = host.ensure(&ports, &owned);
            inner.tell(&host);
            done
        })
        .await
    }

    /// Sets the largest packet for pods that are attached from now on; `None` is that of the default route's interface. Pods that are
    /// attached keep theirs. Errors, after which the former one stays: `InvalidArgument`; whatever the kernel refuses.
    pub async fn set_mtu(&self, mtu: Option<u32>) -> Result<()> {
        self.run(move |inner| {
            let mut host = inner.host();
            host.set_mtu(mtu)?;
            inner.tell(&host);
            Ok(())
        })
        .await
    }

    /// Looks whether somebody broke the network, or a firewall came, and repairs it as [`Self::ensure`] does. Returns what was
    /// wrong, in a sentence. To be called every few seconds: nothing else tells when a ruleset is flushed.
    pub async fn maintain(&self) -> Result<Option<String>> {
        self.run(|inner| {
            let mut host = inner.host();
            let (ports, owned) = inner.expected();
            // What is being attached has its ports in the pool already, and in the kernel a little later.
            let busy = inner.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let settled = inner.pool().host_ports_but(&busy);
            let mut damage = host.damage(&ports, &settled, &owned);
            if let Ok(Some(_)) = damage {
                damage = host.ensure(&ports, &owned).and(damage);
            }
            inner.tell(&host);
            damage
        })
        .await
    }

    /// Follows the pod CIDR that the kubelet tells, unless the settings name a subnet: at once while no pod has an address.
    /// Returns whether the network has it now. Errors: `FailedPrecondition` when it overlaps with a route of the node, and then
    /// the former one stays; `InvalidArgument` when it cannot be a pod subnet.
    pub async fn follow(&self, subnet: Option<Ipv4Net>, subnet6: Option<Ipv6Net>) -> Result<bool> {
        self.run(move |inner| inner.follow(subnet, subnet6)).await
    }

    /// Gives a pod its network: an address (leased durably first), `eth0` and loopback up in its network namespace, the
    /// default route, and its host ports. All of it or nothing. A pod that has a lease keeps its address.
    /// Errors: `AlreadyExists` when another pod has a host port or the hardware address (the message has that pod's id), `ResourceExhausted` when
    /// no address is left, `InvalidArgument` for a mapping that cannot work, `NotFound` without the namespace.
    pub async fn attach(&self, pod: &PodId, netns: &Path, wish: &PodNetwork) -> Result<Attachment> {
        let (pod, netns, wish) = (pod.clone(), netns.to_owned(), wish.clone());
        self.run(move |inner| {
            let file = netns::open(&netns)?;
            let mut inside = netns::pod_socket(&file, &netns)?;
            let busy = Busy::new(inner, &pod);
            let reservation = inner.pool().reserve(&pod, &wish)?;
            let result = inner.build(&pod, (&reservation, wish.bandwidth), &file, &mut inside);
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
            // The subnet's record stays: the network comes back with the addresses that it had.
            for (key, _) in inner.leases.all()?.into_iter().filter(|(key, _)| key != subnet::KEY) {
                inner.leases.remove(&key)?;
            }
            *inner.pool() = Pool::new(&host.config, Vec::new());
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
        // Both families have as many: an IPv6 address stands beside each IPv4 one.
        let (usage, dual) = (self.usage(), self.config().subnet6.is_some());
        let (size, used) = (u64::from(usage.size), u64::from(usage.used));
        let families = if dual { &["ipv4", "ipv6"][..] } else { &["ipv4"] };
        families.iter().map(|family| (*family, size, used)).collect()
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

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is told of the host: after everything that may change it.
    fn tell(&self, host: &Host) {
        *self.seen() = Seen::of(host);
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Host ports and interfaces as they should be.
    fn expected(&self) -> (Vec<crate::nft::HostPort>, HashSet<String>) {
        let pool = self.pool();
        (pool.host_ports(), pool.leases().map(|(_, lease)| lease.host_interface.clone()).collect())
    }

    fn build(
        &self,
        pod: &PodId,
        (reservation, bandwidth): (&Reservation, Bandwidth),
        netns: &File,
        inside: &mut RouteSocket,
    ) -> Result<Attachment> {
        let lease = &reservation.lease;
        self.leases.put(pod.as_str(), &lease.encode()?).context(|| "record the address lease")?;
        let mut host = self.host();
        if let Some(former) = &reservation.former_interface {
            host.remove_link(former)?;
        }
        host.connect(lease, bandwidth, netns, inside)?;
        if !lease.ports.is_empty() {
            let all = self.pool().host_ports();
            let dual = host.config.subnet6.is_some();
            host.add_ports(&host_ports(lease, dual), &all)?;
        }
        let mac = lease.hardware_address().map(|b| format!("{b:02x}")).join(":");
        let addresses = host.config.nets(lease.address, lease.address6);
        let gateways = addresses.iter().filter_map(|net| match net {
            IpNet::V4(_) => Some(host.config.gateway().into()),
            IpNet::V6(_) => host.config.gateway6().map(Into::into),
        });
        let mut gateways = gateways.collect::<Vec<_>>().into_iter();
        Ok(Attachment {
            interface: POD_INTERFACE.to_owned(),
            host_interface: lease.host_interface.clone(),
            mac,
            gateway: gateways.next().unwrap_or_else(|| host.config.gateway().into()),
            second_gateway: gateways.next(),
            addresses,
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
            let dual = host.config.subnet6.is_some();
            host.remove_ports(&host_ports(&lease, dual), &remaining)?;
        }
        if let Some(limiter) = &lease.limiter {
            host.remove_link(limiter)?;
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
        let (ports, mut owned) = self.expected();
        owned.extend(self.pool().leases().filter_map(|(_, lease)| lease.limiter.clone()));
        done.interfaces.extend(host.remove_strays(&owned)?);
        done.elements = host.sync_ports(&ports)?;
        Ok(done)
    }
}

impl Inner {
    fn follow(&self, subnet: Option<Ipv4Net>, subnet6: Option<Ipv6Net>) -> Result<bool> {
        let mut host = self.host();
        let mut wanted = host.config.clone();
        wanted.subnet = subnet.unwrap_or(wanted.subnet);
        wanted.subnet6 = wanted.subnet6.map(|own| subnet6.unwrap_or(own));
        if wanted == host.config {
            return Ok(true);
        }
        let mut pool = self.pool();
        if wanted.derived_from.is_none() || pool.leases().next().is_some() {
            return Ok(false);
        }
        wanted.validate()?;
        let taken = Taken::of(&wanted);
        // Only sockets: refused, it has changed nothing.
        let mut next = Host::open(&wanted, Some(taken.clone()), true)?;
        self.leases.put(subnet::KEY, &taken.encode()?).context(|| "record the subnet")?;
        host.destroy()?;
        next.ensure(&[], &HashSet::new())?;
        *pool = Pool::new(&next.config, Vec::new());
        *host = next;
        self.tell(&host);
        Ok(true)
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
