//! Who sheds: the gateway, or the same limit by other means.

use anyhow::Result;
use gateway_tests::netns::Namespace;
use serde::Serialize;

/// The interface that the flood arrives at.
pub(super) const CARD: &str = "card";

/// Where the gateway listens.
pub(super) const PORT: u16 = 8443;

/// Who sheds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shedding {
    Nobody,
    Nftables,
    Iptables,
    Gateway,
}

impl Shedding {
    pub(super) const ALL: [Self; 4] = [Self::Nobody, Self::Nftables, Self::Iptables, Self::Gateway];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Nobody => "nobody sheds",
            Self::Nftables => "nftables, limit per source",
            Self::Iptables => "iptables, hashlimit",
            Self::Gateway => "the gateway, XDP",
        }
    }

    /// Adds rules with the gateway's own default limit, as early in the stack as they can be.
    pub(super) fn apply(self, server: &Namespace) -> Result<()> {
        let rules: &[&str] = match self {
            Self::Nobody | Self::Gateway => &[],
            Self::Nftables => &[
                "nft add table ip shed",
                "nft add chain ip shed raw { type filter hook prerouting priority -300 ; }",
                "nft add set ip shed sources { type ipv4_addr ; flags dynamic ; size 65536 ; timeout 1m ; }",
                "nft add rule ip shed raw iifname card tcp dport 8443 tcp flags & (syn | ack) == syn add @sources { ip saddr limit rate \
                 over 50/second burst 100 packets } drop",
            ],
            Self::Iptables => {
                &["iptables -w -t raw -A PREROUTING -i card -p tcp --dport 8443 --syn -m hashlimit \
                 --hashlimit-above 50/second --hashlimit-burst 100 --hashlimit-mode srcip --hashlimit-name shed -j DROP"]
            }
        };
        rules.iter().try_for_each(|rule| server.command(rule))
    }
}
