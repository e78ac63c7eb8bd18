//! Where the processes live: a network namespace each, joined by a bridge, or loopback addresses.
//!
//! In namespaces any pair can be parted by nftables rules in one of the two. Everything made here
//! has the process id in its name and is removed when the value is dropped; what an earlier run
//! that was killed has left is removed at the start of the next.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// What names of namespaces, bridges and links begin with; the process id follows.
const PREFIX: &str = "wbe";

/// Whose end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A process, by its node.
    Node(usize),
    /// This program: users, producers, the consumer.
    Outside,
}

/// Which way packets are dropped, seen from the node that has the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Both.
    Both,
    /// What comes in.
    In,
    /// What goes out.
    Out,
}

/// The nodes and their addresses.
#[derive(Debug)]
pub(crate) struct Net {
    nodes: usize,
    /// Namespaces, or plain loopback addresses without partitions.
    spaces: bool,
    /// Second and third byte of the addresses.
    subnet: [u8; 2],
}

impl Net {
    /// Makes a node for each process. `spaces` needs root.
    pub(crate) fn open(nodes: usize, spaces: bool) -> Result<Self, String> {
        let pid = std::process::id();
        let low = |value: u32| u8::try_from(value % 250).unwrap_or(0);
        let net = Self { nodes, spaces, subnet: [200 + low(pid) % 50, 1 + low(pid / 50)] };
        if spaces {
            remove_leftovers();
            net.make()?;
        }
        Ok(net)
    }

    fn make(&self) -> Result<(), String> {
        let (bridge, outside) = (self.bridge(), self.outside());
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {outside}/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for node in 0..self.nodes {
            let (space, address) = (self.space(node), self.address(node));
            let port = self.port(node);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {port} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {port} master {bridge} up"))?;
            ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            self.nft(node, "add table inet endure")?;
            for hook in ["input", "output"] {
                let rule = format!("{{ type filter hook {hook} priority 0 ; }}");
                self.nft(node, &format!("add chain inet endure {hook} {rule}"))?;
            }
        }
        Ok(())
    }

    /// Whether pairs can be parted.
    pub(crate) fn can_part(&self) -> bool {
        self.spaces
    }

    /// The address of a node.
    pub(crate) fn address(&self, node: usize) -> IpAddr {
        let last = u8::try_from(10 + node).expect("a handful of nodes");
        let [b, c] = self.subnet;
        IpAddr::V4(Ipv4Addr::new(if self.spaces { 10 } else { 127 }, b, c, last))
    }

    fn outside(&self) -> IpAddr {
        let [b, c] = self.subnet;
        IpAddr::V4(Ipv4Addr::new(10, b, c, 1))
    }

    fn bridge(&self) -> String {
        format!("{PREFIX}{}br", std::process::id())
    }

    fn space(&self, node: usize) -> String {
        format!("{PREFIX}{}n{node}", std::process::id())
    }

    fn port(&self, node: usize) -> String {
        format!("{PREFIX}{}p{node}", std::process::id())
    }

    /// The file that stands for the namespace of a node, if there are namespaces.
    pub(crate) fn space_file(&self, node: usize) -> Option<String> {
        self.spaces.then(|| format!("/run/netns/{}", self.space(node)))
    }

    /// A command that runs in the namespace of a node. `ip netns exec` becomes the program: the
    /// process id is its own.
    pub(crate) fn command(&self, node: usize, program: &std::path::Path) -> Command {
        if !self.spaces {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node)]).arg(program);
        command
    }

    /// Drops packets between a node and another end.
    pub(crate) fn part(&self, node: usize, other: End, way: Way) -> Result<(), String> {
        let address = match other {
            End::Node(other) => self.address(other),
            End::Outside => self.outside(),
        };
        if way != Way::Out {
            self.nft(node, &format!("add rule inet endure input ip saddr {address} drop"))?;
        }
        if way != Way::In {
            self.nft(node, &format!("add rule inet endure output ip daddr {address} drop"))?;
        }
        Ok(())
    }

    /// Resets every TCP connection from another node to this one on which something comes, until
    /// they are joined again.
    pub(crate) fn reset(&self, node: usize, other: usize) -> Result<(), String> {
        // One way only: a rule for what goes out would stop the resets too.
        let (address, reset) = (self.address(other), "meta l4proto tcp reject with tcp reset");
        self.nft(node, &format!("add rule inet endure input ip saddr {address} {reset}"))
    }

    /// Takes all rules of a node away.
    pub(crate) fn join(&self, node: usize) -> Result<(), String> {
        self.nft(node, "flush chain inet endure input")?;
        self.nft(node, "flush chain inet endure output")
    }

    fn nft(&self, node: usize, words: &str) -> Result<(), String> {
        let space = self.space(node);
        run("ip", &["netns", "exec", &space, "nft", words])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.spaces {
            for node in 0..self.nodes {
                // The link first: a namespace goes when the last of its processes has, and later.
                let _gone_already = ip(&format!("link del {}", self.port(node)));
                let _gone_already = ip(&format!("netns del {}", self.space(node)));
            }
            let _gone_already = ip(&format!("link del {}", self.bridge()));
        }
    }
}

/// Removes namespaces and bridges of runs whose process is gone, and ends what runs in them.
fn remove_leftovers() {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for space in spaces.filter(|name| owner_is_gone(name)) {
        let pids = Command::new("ip").args(["netns", "pids", &space]).output();
        let pids = pids.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let pids = pids.unwrap_or_default();
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
        let _gone_already = ip(&format!("netns del {space}"));
    }
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let links = links.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for link in links.filter(|name| owner_is_gone(name)) {
        let _gone_already = ip(&format!("link del {link}"));
    }
}

/// Whether this is a name of ours whose process does not run any more.
fn owner_is_gone(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let pid = digits.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid).is_err())
}

fn ip(words: &str) -> Result<(), String> {
    run("ip", &words.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), words.trim()))
}
