//! What the kernel knows of addresses and routes, and what we tell it.
//!
//! Owns: rtnetlink, through which the device gets its addresses, overlaps with local routes are found, and changes of
//! the machine's own addresses are heard of. Never: the TUN device itself, or a choice of address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};

/// The kernel's table of the machine's own addresses (rtnetlink(7), RT_TABLE_LOCAL).
const TABLE_LOCAL: u32 = 255;
/// The table of ordinary routes (RT_TABLE_MAIN).
const TABLE_MAIN: u32 = 254;

/// Addresses that nobody took are told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Changes of interfaces come in swarms.
const SETTLE: Duration = Duration::from_millis(10);

/// What is listened to.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// What is different from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The machine's addresses, which are these.
    Addresses(&'a [IpAddr]),
    /// The way that datagrams leave, from the same addresses.
    Routes,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    is_v4: bool,
    metric: u32,
    device: String,
    gateway: Option<IpAddr>,
}

/// What is news.
fn news<'a>(
    last: Option<&(Vec<IpAddr>, Vec<Way>)>,
    (hosts, ways): &'a (Vec<IpAddr>, Vec<Way>),
) -> Option<Change<'a>> {
    match last {
        Some((old, _)) if old != hosts => Some(Change::Addresses(hosts)),
        None => Some(Change::Addresses(hosts)),
        Some((_, old)) if old != ways => Some(Change::Routes),
        Some(_) => None,
    }
}

/// A conversation with the kernel; its socket is served by a task of the runtime it was opened on.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

fn other(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error.to_string()),
    }
}

impl Netlink {
    /// Open it, on the current tokio runtime.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every unicast route of this machine, with the name of its interface; the local table, which holds the
    /// machine's own addresses, is left out.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn routes(&self) -> io::Result<Vec<(IpNetwork, String)>> {
        let names = self.names().await?;
        let mut routes = Vec::new();
        for message in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut answers = self.handle.route().get(message).execute();
            while let Some(route) = answers.try_next().await.map_err(other)? {
                routes.extend(unicast(&route, &names));
            }
        }
        Ok(routes)
    }

    /// The IPv4 gateway of the default route, the best of several; routes through the device called `except` and those
    /// of other networks of ours don't count.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn gateway4(&self, except: &str) -> io::Result<Option<Ipv4Addr>> {
        let names = self.names().await?;
        let mut found: Vec<(u32, Ipv4Addr)> = Vec::new();
        let mut answers = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        while let Some(route) = answers.try_next().await.map_err(other)? {
            let foreign = |name: &String| name != except && !name.starts_with("frejus");
            if interface(&route).and_then(|index| names.get(&index)).is_some_and(foreign) {
                found.extend(default_gateway(&route));
            }
        }
        Ok(found.into_iter().min().map(|(_, gateway)| gateway))
    }

    /// Addresses of this machine that another one might reach: of interfaces that are up, without loopback, link-local
    /// ones, the device called `except`, and those of other networks of ours.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn host_addresses(&self, except: &str) -> io::Result<Vec<IpAddr>> {
        let names = self.names().await?;
        let mut found = Vec::new();
        let mut answers = self.handle.address().get().execute();
        while let Some(address) = answers.try_next().await.map_err(other)? {
            let foreign = |name: &String| name != except && !name.starts_with("frejus");
            let up = names.get(&address.header.index).is_some_and(foreign);
            if up && matches!(address.header.scope, AddressScope::Universe | AddressScope::Site) {
                found.extend(local_address(&address).filter(|ip| !is_passing(&address, *ip)));
            }
        }
        Ok(found)
    }

    /// Give `device` an address, and with the prefix the route to the network; then bring it up.
    ///
    /// # Errors
    /// There is no such device, or this process may not.
    pub async fn configure(&self, device: &str, addresses: &[IpNetwork]) -> io::Result<()> {
        let index = self.index(device).await?;
        for network in addresses {
            let add = self.handle.address().add(index, network.ip(), network.prefix());
            add.replace().execute().await.map_err(other)?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(other)
    }

    /// Tell the machine's addresses (as [`Self::host_addresses`] does) now and whenever they change, and that its default
    /// routes did, for as long as the runtime lives. Where `changed` says `false` it is told again.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn watch(
        self,
        except: String,
        mut changed: impl FnMut(Change<'_>) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
        tokio::spawn(connection);
        tokio::spawn(async move {
            let mut last: Option<(Vec<IpAddr>, Vec<Way>)> = None;
            loop {
                match self.outlook(&except).await {
                    Ok(seen) if news(last.as_ref(), &seen).is_none_or(&mut changed) => last = Some(seen),
                    Ok(_) => {
                        tokio::time::sleep(TELL_AGAIN).await;
                        continue;
                    }
                    Err(error) => tracing::warn!("the kernel does not say its addresses: {error}"),
                }
                if messages.next().await.is_none() {
                    break;
                }
                // An interface that comes up says so in several messages.
                tokio::time::sleep(SETTLE).await;
                while let Some(Some(_)) = messages.next().now_or_never() {}
            }
        });
        Ok(())
    }

    /// Where this machine is: its addresses, and its ways out.
    async fn outlook(&self, except: &str) -> io::Result<(Vec<IpAddr>, Vec<Way>)> {
        let mut hosts = self.host_addresses(except).await?;
        hosts.sort_unstable();
        Ok((hosts, self.ways_out(except).await?))
    }

    /// Default routes, except through the device called `except` and those of other networks of ours.
    async fn ways_out(&self, except: &str) -> io::Result<Vec<Way>> {
        let names = self.names().await?;
        let mut ways = Vec::new();
        for message in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut answers = self.handle.route().get(message).execute();
            while let Some(route) = answers.try_next().await.map_err(other)? {
                let default = unicast(&route, &names).filter(|(to, _)| to.prefix() == 0);
                let foreign = |name: &String| name != except && !name.starts_with("frejus");
                ways.extend(default.filter(|(_, name)| foreign(name)).map(|(to, name)| Way {
                    is_v4: to.is_ipv4(),
                    device: name,
                    gateway: gateway(&route),
                    metric: metric(&route),
                }));
            }
        }
        ways.sort_unstable();
        Ok(ways)
    }

    async fn index(&self, device: &str) -> io::Result<u32> {
        let mut links = self.handle.link().get().match_name(device.to_owned()).execute();
        let link = links.try_next().await.map_err(other)?;
        link.map(|link| link.header.index).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Interfaces that are up and have a carrier, loopback excepted, by index.
    async fn names(&self) -> io::Result<BTreeMap<u32, String>> {
        let mut names = BTreeMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(other)? {
            // Without a carrier an address is of no use, and when that comes back the network may be another one.
            let usable = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
                && !link.header.flags.contains(LinkFlags::Loopback);
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            if let Some(name) = name.filter(|_| usable) {
                names.insert(link.header.index, name);
            }
        }
        Ok(names)
    }
}

fn unicast(route: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<(IpNetwork, String)> {
    if table(route) == TABLE_LOCAL || route.header.kind != RouteType::Unicast {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    let any = match route.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let network = IpNetwork::new(destination.unwrap_or(any), route.header.destination_prefix_length).ok()?;
    let name = interface(route).and_then(|index| names.get(&index).cloned());
    Some((network, name.unwrap_or_else(|| "another interface".to_owned())))
}

fn table(route: &RouteMessage) -> u32 {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(u32::from(route.header.table))
}

fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Metric and gateway, if it is a default route with a gateway; the least metric wins.
fn default_gateway(route: &RouteMessage) -> Option<(u32, Ipv4Addr)> {
    let default = route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
        _ => None,
    });
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    gateway.filter(|_| default && table(route) == TABLE_MAIN).map(|gateway| (metric.unwrap_or(0), gateway))
}

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    of(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None }).or_else(|| {
        of(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None })
    })
}

/// Temporary and deprecated IPv6 addresses (RFC 8981) are not worth telling others.
fn is_passing(message: &AddressMessage, ip: IpAddr) -> bool {
    use rtnetlink::packet_route::address::AddressFlags;
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let passing = AddressFlags::Secondary | AddressFlags::Deprecated | AddressFlags::Tentative;
    ip.is_ipv6() && flags.is_some_and(|flags| flags.intersects(passing))
}

/// The addresses with the port that the node listens on.
#[must_use]
pub fn with_port(addresses: &[IpAddr], v4: Option<u16>, v6: Option<u16>) -> Vec<SocketAddr> {
    let port = |ip: &IpAddr| if ip.is_ipv4() { v4 } else { v6 };
    addresses.iter().filter_map(|ip| Some(SocketAddr::new(*ip, port(ip)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(metric: u32, device: &str) -> Way {
        Way { is_v4: true, metric, device: device.to_owned(), gateway: None }
    }

    #[test]
    fn addresses_are_told_first_and_routes_only_when_those_stay() {
        let hosts = vec![IpAddr::from([192, 0, 2, 1])];
        let wire = (hosts.clone(), vec![way(100, "eth0")]);
        assert_eq!(news(None, &wire), Some(Change::Addresses(&hosts)));
        assert_eq!(news(Some(&wire), &wire), None);
        let both = (hosts.clone(), vec![way(50, "wlan0"), way(100, "eth0")]);
        assert_eq!(news(Some(&wire), &both), Some(Change::Routes));
        let none = (Vec::new(), Vec::new());
        assert_eq!(news(Some(&wire), &none), Some(Change::Addresses(&[])));
    }
}
