//! What becomes of a packet.

/// What the XDP program decided about one packet, and why. Also the index of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// Not TCP to the gateway's address and port: not looked at further.
    Foreign = 0,
    /// Not readable as far as the TCP header: passed, for the kernel to judge.
    Unreadable = 1,
    /// To the gateway, on a connection that is already there.
    Established = 2,
    /// A connection that is opened within the limits.
    Opened = 3,
    /// Would have been dropped, but its network is exempt.
    Exempt = 4,
    /// A connection opened faster than the source may.
    OverRate = 5,
    /// A connection more than the source may hold.
    OverHeld = 6,
    /// Any packet of a source under penalty, unless it opens a connection beyond a limit: that is found first.
    Penalised = 7,
}

impl Verdict {
    /// Every verdict, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Foreign,
        Self::Unreadable,
        Self::Established,
        Self::Opened,
        Self::Exempt,
        Self::OverRate,
        Self::OverHeld,
        Self::Penalised,
    ];

    /// The counter's place in its map.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The verdict at a place in the counters' map.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.index() == index)
    }

    /// Whether the packet ends here.
    #[must_use]
    #[inline(always)]
    pub const fn drops(self) -> bool {
        match self {
            Self::Foreign | Self::Unreadable | Self::Established | Self::Opened | Self::Exempt => false,
            Self::OverRate | Self::OverHeld | Self::Penalised => true,
        }
    }

    /// The value of the metrics' label `verdict`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Unreadable => "unreadable",
            Self::Established => "established",
            Self::Opened => "opened",
            Self::Exempt => "exempt",
            Self::OverRate => "dropped_connection_rate",
            Self::OverHeld => "dropped_concurrent_connections",
            Self::Penalised => "dropped_penalty",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_own_counter() {
        for (place, verdict) in (0..).zip(Verdict::ALL) {
            assert_eq!(verdict.index(), place);
            assert_eq!(Verdict::from_index(place), Some(verdict));
        }
        assert_eq!(Verdict::from_index(8), None);
    }
}
