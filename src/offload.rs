//! What the kernel may do in bulk for us, and whether it does.
//!
//! Owns: the names of the offloads, what the user wishes of each, and how each stands with the reason if it is off.
//! Never: the work itself, which [`crate::tun`] and [`crate::udp`] do, each with a trial and a way without.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::report::{Attention, Offload as Report};

/// What was refused while running is tried again after this long: the way of the packets may have changed.
pub const RETRY: Duration = Duration::from_secs(5 * 60);

/// So often may the kernel refuse an offload before it is turned off: one packet might be the fault of a strange peer.
const REFUSALS: u32 = 16;

macro_rules! offloads {
    ($($(#[$doc:meta])* $variant:ident $key:ident,)+) => {
        /// Something that the kernel may do in bulk.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Offload { $($(#[$doc])* $variant,)+ }

        impl Offload {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As configuration and `status` name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($key),)+ }
            }
        }

        /// What the user wishes: `true` and `false` are orders, nothing said leaves it to the kernel and its version.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Wishes { $($(#[$doc])* pub $key: Option<bool>,)+ }

        impl Wishes {
            /// What was said of `which`.
            #[must_use]
            pub const fn of(&self, which: Offload) -> Option<bool> {
                match which { $(Offload::$variant => self.$key,)+ }
            }

            /// The same, but `which` is on whatever the kernel's version.
            #[must_use]
            pub const fn with(mut self, which: Offload) -> Self {
                match which { $(Offload::$variant => self.$key = Some(true),)+ }
                self
            }

            /// The same, but `which` is off.
            #[must_use]
            pub const fn without(mut self, which: Offload) -> Self {
                match which { $(Offload::$variant => self.$key = Some(false),)+ }
                self
            }
        }
    };
}

offloads! {
    /// The device hands over TCP super-packets, which are cut here.
    TunTso tun_tso,
    /// The device hands over UDP super-packets (Linux 6.2).
    TunUso tun_uso,
    /// Segments of a TCP flow are written to the device as one.
    TcpCoalescing tcp_coalescing,
    /// Datagrams of a UDP flow are written to the device as one (Linux 6.2); vxlan and geneve on top can't bear it.
    UdpCoalescing udp_coalescing,
    /// The device leaves transport checksums to us, and we leave them to the receiver under transport keys, whose device
    /// fills them in.
    TunChecksum tun_checksum,
    /// A run of equal frames is sent in one call and cut by the kernel or the network card.
    UdpGso udp_gso,
    /// A run of equal frames is received as one.
    UdpGro udp_gro,
}

impl Wishes {
    /// Those that were ordered off.
    pub fn off(&self) -> impl Iterator<Item = Offload> + '_ {
        Offload::ALL.iter().copied().filter(|which| self.of(*which) == Some(false))
    }
}

impl FromStr for Offload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|which| which.name()).collect::<Vec<_>>().join(", ");
        Self::ALL
            .iter()
            .copied()
            .find(|which| which.name() == text)
            .ok_or_else(|| format!("`{text}` is no offload: {}", known()))
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an offload is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// The user said so.
    Ordered = 1,
    /// The kernel has none.
    Missing,
    /// This version of the kernel is known to damage packets with it.
    Version,
    /// It did not pass the trial at the start.
    Trial,
    /// The kernel refused it on the way; it is tried again after [`RETRY`].
    Refused,
}

impl Why {
    const ALL: [Self; 5] = [Self::Ordered, Self::Missing, Self::Version, Self::Trial, Self::Refused];

    /// As `status` says it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ordered => "switched off in the configuration",
            Self::Missing => "this kernel has none",
            Self::Version => "kernels 7.0 to 7.1.4 damage packets with it",
            Self::Trial => "failed its trial at the start",
            Self::Refused => "refused by the kernel, tried again within minutes",
        }
    }

    /// What an operator can do about it; `None` where nothing is wrong.
    fn mend(self, which: Offload) -> Option<String> {
        let end_it = format!("say {which} = false under [offload] to have it so");
        match self {
            Self::Ordered | Self::Missing => None,
            Self::Version => Some(format!(
                "update the kernel; where it has the mend already, say {which} = true under [offload]"
            )),
            Self::Trial | Self::Refused => Some(format!("update the kernel, or {end_it}")),
        }
    }
}

/// How each offload stands; one for the device, the sockets and control together. Read at most once a batch.
#[derive(Debug)]
pub struct Offloads {
    wishes: Wishes,
    /// Zero, or a [`Why`].
    standing: [AtomicU8; Offload::ALL.len()],
    /// Since it was last turned on.
    refusals: [AtomicU32; Offload::ALL.len()],
    /// When to try again what was refused, in milliseconds since `began`.
    again: [AtomicU64; Offload::ALL.len()],
    began: Instant,
}

impl Default for Offloads {
    /// Everything that the kernel has.
    fn default() -> Self {
        Self::new(Wishes::default())
    }
}

impl Offloads {
    /// As was wished.
    #[must_use]
    pub fn new(wishes: Wishes) -> Self {
        let offloads = Self {
            wishes,
            standing: Default::default(),
            refusals: Default::default(),
            again: Default::default(),
            began: Instant::now(),
        };
        wishes.off().for_each(|which| offloads.turn_off(which, Why::Ordered));
        offloads
    }

    /// Turns off what the kernel of this `release` is known to do wrong, unless the user insists on it.
    #[must_use]
    pub fn for_kernel(self, release: &str) -> Self {
        if self.wishes.udp_gso.is_none() && damages_equal_segments(release) {
            self.turn_off(Offload::UdpGso, Why::Version);
        }
        self
    }

    /// Whether it is in use. The clock is read only where the kernel has refused it.
    #[must_use]
    pub fn is_on(&self, which: Offload) -> bool {
        match self.standing[which as usize].load(Ordering::Relaxed) {
            0 => true,
            standing if standing == Why::Refused as u8 => self.is_due(which, self.began.elapsed()),
            _ => false,
        }
    }

    /// Why it is not in use.
    #[must_use]
    pub fn why(&self, which: Offload) -> Option<Why> {
        let standing = self.standing[which as usize].load(Ordering::Relaxed);
        Why::ALL.into_iter().find(|why| *why as u8 == standing)
    }

    /// Turns it off. The first reason stays.
    pub fn turn_off(&self, which: Offload, why: Why) {
        let standing = &self.standing[which as usize];
        standing.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The kernel refused a packet with it, and took the packet without. After sixteen of them it is off until
    /// [`RETRY`] has passed.
    pub fn refused(&self, which: Offload) {
        if self.refusals[which as usize].fetch_add(1, Ordering::Relaxed) + 1 == REFUSALS {
            self.turn_off_until(which, self.began.elapsed() + RETRY);
            tracing::warn!(offload = which.name(), "the kernel refuses it: done without for some minutes");
        }
    }

    fn turn_off_until(&self, which: Offload, again: Duration) {
        let again = again.as_millis().try_into().unwrap_or(u64::MAX);
        self.again[which as usize].store(again, Ordering::Relaxed);
        self.turn_off(which, Why::Refused);
    }

    /// Tries again what was refused, if it is time.
    fn is_due(&self, which: Offload, now: Duration) -> bool {
        let due = now.as_millis() >= self.again[which as usize].load(Ordering::Relaxed).into();
        if due {
            self.refusals[which as usize].store(0, Ordering::Relaxed);
            let standing = &self.standing[which as usize];
            standing.compare_exchange(Why::Refused as u8, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        due
    }

    /// For `status`.
    #[must_use]
    pub fn report(&self) -> BTreeMap<String, Report> {
        let one = |which: &Offload| {
            let why = self.why(*which);
            let report = Report { on: why.is_none(), why: why.map(|why| why.text().to_owned()) };
            (which.name().to_owned(), report)
        };
        Offload::ALL.iter().map(one).collect()
    }

    /// What an operator should look at.
    #[must_use]
    pub fn attention(&self) -> Vec<Attention> {
        let one = |which: &Offload| {
            let why = self.why(*which)?;
            let what = format!("the offload {which} is off, so packets cost more: {}", why.text());
            Some(Attention { what, mend: why.mend(*which)? })
        };
        Offload::ALL.iter().filter_map(one).collect()
    }
}

/// The running kernel's version, such as `6.18.44`; empty if it does not say.
#[must_use]
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Linux 7.0 to 7.1.4 spoil UDP headers and checksums between UDP segmentation and some network cards' drivers, where
/// the last segment is as long as the others. No test on the machine itself can show it.
fn damages_equal_segments(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+', '\n']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ((7, 0, 0)..(7, 1, 5)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_damage_packets() {
        for release in ["7.0.0", "7.0.2-6-pve", "7.1.4", "7.0\n", "7.0-rc1", "7.1.0-generic+"] {
            assert!(damages_equal_segments(release), "{release}");
        }
        for release in ["6.18.44", "6.99.1", "7.1.5", "7.1.5-1-pve", "7.2.0", "8.0.1", "", "nonsense"] {
            assert!(!damages_equal_segments(release), "{release}");
        }
    }

    #[test]
    fn a_version_turns_off_what_nobody_insisted_on() {
        let why = |wishes| Offloads::new(wishes).for_kernel("7.1.4").why(Offload::UdpGso);
        assert_eq!(why(Wishes::default()), Some(Why::Version));
        assert_eq!(why(Wishes { udp_gso: Some(true), ..Wishes::default() }), None);
        assert_eq!(why(Wishes::default().without(Offload::UdpGso)), Some(Why::Ordered));
        assert!(Offloads::new(Wishes::default()).for_kernel("6.18.1").is_on(Offload::UdpGso));
    }

    #[test]
    fn the_first_reason_stays() {
        for why in Why::ALL {
            let offloads = Offloads::default();
            offloads.turn_off(Offload::TcpCoalescing, why);
            offloads.turn_off(Offload::TcpCoalescing, Why::Ordered);
            assert_eq!(offloads.why(Offload::TcpCoalescing), Some(why));
            assert!(offloads.is_on(Offload::UdpCoalescing), "the others are as they were");
        }
    }

    #[test]
    fn what_is_refused_often_is_off_for_minutes_and_then_tried_again() {
        let (offloads, which) = (Offloads::default(), Offload::TcpCoalescing);
        for _ in 1..REFUSALS {
            offloads.refused(which);
            assert!(offloads.is_on(which));
        }
        offloads.refused(which);
        assert!(!offloads.is_on(which));
        assert_eq!(offloads.why(which), Some(Why::Refused));
        assert!(!offloads.is_due(which, RETRY / 2));
        assert!(offloads.is_due(which, offloads.began.elapsed() + RETRY));
        assert!(offloads.is_on(which) && offloads.why(which).is_none());
        (0..REFUSALS).for_each(|_| offloads.refused(which));
        assert!(!offloads.is_on(which), "refused again");
    }

    #[test]
    fn what_is_wrong_is_told_with_a_way_out_and_what_was_ordered_is_not() {
        let offloads = Offloads::new(Wishes::default().without(Offload::TunTso));
        offloads.turn_off(Offload::TunUso, Why::Missing);
        assert_eq!(offloads.attention(), []);
        offloads.turn_off(Offload::UdpGro, Why::Trial);
        let [attention] = &offloads.attention()[..] else { panic!("one thing") };
        assert!(attention.what.contains("udp_gro") && attention.mend.contains("udp_gro = false"));
        let report = offloads.report();
        assert_eq!(report.len(), Offload::ALL.len());
        assert_eq!(report["tun_tso"].why.as_deref(), Some("switched off in the configuration"));
        assert_eq!((report["udp_gso"].on, &report["udp_gso"].why), (true, &None));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for which in Offload::ALL {
            assert_eq!(which.name().parse(), Ok(*which));
            assert!(Wishes::default().without(*which).off().eq([*which]));
        }
        assert!("gso".parse::<Offload>().unwrap_err().contains("udp_gso"));
    }
}
