//! Attaching, staying attached, and letting go.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, ProgramError, XdpMode};
use gateway_ebpf::maps::Known;
use gateway_ebpf::source::Source;
use gateway_ebpf::verdict::Verdict;
use nix::errno::Errno;
use parking_lot::Mutex;

use super::interface::{self, Place};
use super::programs::Programs;
use super::{cgroup, privileges};
use crate::kernel::config::{Attach, KernelConfig};
use crate::kernel::error::KernelError;
use crate::kernel::status::{AttachedInterface, Attachment};

/// The programs, attached. Detached when this is dropped or the process ends, however it ends: the kernel lets go of a
/// link with the last file descriptor of it.
#[derive(Debug)]
pub(crate) struct Kernel {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    // Before the programs: links go first.
    interfaces: Vec<Attached>,
    cgroup: PathBuf,
    _cgroup_link: FdLink,
    programs: Programs,
    listener: SocketAddr,
    attach: Attach,
}

#[derive(Debug)]
struct Attached {
    place: Place,
    mode: XdpMode,
    /// Nothing once the interface is gone.
    link: Option<FdLink>,
}

/// What the maps said at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) packets: [(Verdict, u64); Verdict::ALL.len()],
    pub(crate) known: Vec<(Source, Known)>,
    pub(crate) attachment: Attachment,
}

/// By how much the programs' clock may be late: the longest tick that kernels are built with. Penalties end so much
/// sooner, so that whoever comes back when told is let in.
const COARSE_TICK_NS: u64 = 10_000_000;

impl Kernel {
    /// Loads the programs and attaches them for a listener.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) fn attach(config: &KernelConfig, listener: SocketAddr) -> Result<Self, KernelError> {
        privileges::check()?;
        let places = interface::places(&config.interface, listener)?;
        let (cgroup, directory) = cgroup::own()?;
        let mut programs = Programs::load()?;
        programs.set_limits(config, listener.port())?;
        programs.set_exempt(&config.exempt)?;
        programs.set_local(&interface::local_addresses(listener)?)?;
        let counting = programs.sock_ops()?;
        let failed = |source| KernelError::Attach { place: cgroup.display().to_string(), source };
        let id = counting.attach(directory, CgroupAttachMode::Single).map_err(failed)?;
        let link = counting.take_link(id).map_err(failed)?;
        let cgroup_link = FdLink::try_from(link)
            .map_err(|_older| KernelError::NoLink { interface: cgroup.display().to_string() })?;
        let mut interfaces = Vec::new();
        for place in places {
            interfaces.push(Attached::new(&mut programs, place, config.attach)?);
        }
        let attach = config.attach;
        let state = State { interfaces, cgroup, _cgroup_link: cgroup_link, programs, listener, attach };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Enforces other limits from the next packet on, without detaching.
    ///
    /// # Errors
    /// When the maps cannot be written, or there are too many exempt networks.
    pub(crate) fn reconfigure(&self, config: &KernelConfig) -> Result<(), KernelError> {
        let mut state = self.state.lock();
        let port = state.listener.port();
        state.programs.set_exempt(&config.exempt)?;
        state.programs.set_limits(config, port)
    }

    /// Drops a source's packets until a time, in nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    pub(crate) fn penalise(&self, source: Source, end_ns: u64) -> Result<(), KernelError> {
        self.state.lock().programs.penalise(source, end_ns.saturating_sub(COARSE_TICK_NS))
    }

    /// Takes a penalty out of the map. A rate needs no pardon: it is whole again within its burst's time.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub(crate) fn pardon(&self, source: Source) -> Result<(), KernelError> {
        self.state.lock().programs.pardon(source)
    }

    /// Follows the system: new addresses, interfaces renamed, gone or back. Logs what the programs sampled.
    ///
    /// # Errors
    /// When something is in the way; the rest was done.
    pub(crate) fn follow(&self) -> Result<(), KernelError> {
        let mut state = self.state.lock();
        let State { interfaces, programs, listener, attach, .. } = &mut *state;
        for event in programs.events()? {
            let verdict = Verdict::from_index(event.verdict).map_or("unknown", Verdict::label);
            tracing::debug!(source = %event.source, verdict, count = event.count, "a dropped packet, one of many");
        }
        programs.flush_log();
        programs.set_local(&interface::local_addresses(*listener)?)?;
        let mut result = Ok(());
        for attached in interfaces {
            // Every interface is followed, whatever stands in the way of another.
            let followed = attached.follow(programs, *attach);
            result = result.and(followed);
        }
        result
    }

    /// Reads counters and sources.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub(crate) fn read(&self) -> Result<Reading, KernelError> {
        let state = self.state.lock();
        Ok(Reading {
            packets: state.programs.verdicts()?,
            known: state.programs.known()?,
            attachment: Attachment {
                interfaces: state.interfaces.iter().map(Attached::describe).collect(),
                cgroup: state.cgroup.display().to_string(),
            },
        })
    }
}

impl Attached {
    fn new(programs: &mut Programs, place: Place, wanted: Attach) -> Result<Self, KernelError> {
        let (mode, link) = match wanted {
            Attach::Native => (XdpMode::Driver, attach(programs, &place, XdpMode::Driver)?),
            Attach::Generic => (XdpMode::Skb, attach(programs, &place, XdpMode::Skb)?),
            Attach::Auto => match attach(programs, &place, XdpMode::Driver) {
                Ok(link) => (XdpMode::Driver, link),
                Err(KernelError::NotNative { .. } | KernelError::Attach { .. }) => {
                    (XdpMode::Skb, attach(programs, &place, XdpMode::Skb)?)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self { place, mode, link: Some(link) })
    }

    /// A renamed interface keeps its program; one that is gone took it along, and is attached anew when one of its name is
    /// back.
    fn follow(&mut self, programs: &mut Programs, wanted: Attach) -> Result<(), KernelError> {
        if self.link.is_some()
            && let Some(name) = interface::name(self.place.index)
        {
            if name != self.place.name {
                tracing::warn!(
                    from = self.place.name,
                    to = name,
                    "the interface was renamed and stays protected"
                );
                self.place.name = name;
            }
            return Ok(());
        }
        if self.link.take().is_some() {
            tracing::warn!(
                interface = self.place.name,
                "the interface is gone, and its kernel program with it"
            );
        }
        let Ok(place) = interface::place(self.place.name.clone()) else {
            return Ok(());
        };
        *self = Self::new(programs, place, wanted)?;
        tracing::info!(interface = self.place.name, "the interface is back and protected again");
        Ok(())
    }

    fn describe(&self) -> AttachedInterface {
        let mode = match (&self.link, self.mode) {
            (None, _) => "gone",
            (Some(_), XdpMode::Driver) => "native",
            (Some(_), XdpMode::Default | XdpMode::Skb | XdpMode::Hardware) => "generic",
        };
        AttachedInterface { name: self.place.name.clone(), index: self.place.index, mode }
    }
}

fn attach(programs: &mut Programs, place: &Place, mode: XdpMode) -> Result<FdLink, KernelError> {
    let interface = place.name.clone();
    let xdp = programs.xdp()?;
    let id = match xdp.attach_to_if_index(place.index, mode) {
        Ok(id) => id,
        Err(source) => {
            return Err(match errno(&source) {
                Some(Errno::EBUSY | Errno::EEXIST) => KernelError::Occupied { interface },
                Some(Errno::EPERM) => KernelError::Capability { missing: "CAP_NET_ADMIN".to_owned() },
                Some(Errno::EOPNOTSUPP) => KernelError::NotNative { interface },
                _ => KernelError::Attach { place: interface, source },
            });
        }
    };
    let link =
        xdp.take_link(id).map_err(|source| KernelError::Attach { place: interface.clone(), source })?;
    FdLink::try_from(link).map_err(|_netlink| KernelError::NoLink { interface })
}

fn errno(error: &ProgramError) -> Option<Errno> {
    let ProgramError::SyscallError(error) = error else {
        return None;
    };
    io::Error::raw_os_error(&error.io_error).map(Errno::from_raw)
}
