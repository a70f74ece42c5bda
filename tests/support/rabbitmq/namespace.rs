//! A network of its own for a broker, whose packets can be made to vanish.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{
    super::process::{Process, mortal},
    wait_until,
};

/// An Ethernet address that nobody has.
const NOBODY: &str = "02:00:5e:00:53:01";

/// Whether a network namespace can be made here. Fails where it cannot, unless `FOREBAY_TEST_NO_ROOT` allows it: then
/// it says what is left out.
#[allow(clippy::print_stderr, reason = "what is left out is said")]
pub fn can_isolate(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("FOREBAY_TEST_NO_ROOT").is_some(),
        "{test}: to make a network namespace, root is needed; FOREBAY_TEST_NO_ROOT=1 leaves such tests out"
    );
    eprintln!("LEFT OUT, for want of root: {test}");
    false
}

/// A network namespace and a cable to it. Both are gone when this process is, because only a child of ours holds them.
pub struct Namespace {
    holder: Process,
    /// Our end of the cable.
    link: String,
    our_address: Ipv4Addr,
    /// Of whoever listens in it.
    pub address: Ipv4Addr,
}

impl Namespace {
    pub fn make(dir: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id()
            .wrapping_mul(4)
            .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
            % (1 << 14);
        // A network of four addresses.
        let network = Ipv4Addr::new(10, 231, 0, 0).to_bits() + number * 4;
        let mut command = mortal("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let this = Self {
            holder: Process::run(command, &dir.join("namespace.log")),
            link: format!("forebay{number}"),
            our_address: Ipv4Addr::from_bits(network + 1),
            address: Ipv4Addr::from_bits(network + 2),
        };
        let (ours, pid) = (this.link.as_str(), this.holder.pid().to_string());
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        wait_until("a namespace of its own", Duration::from_secs(10), || {
            namespace(&pid) != namespace("self")
        })
        .unwrap();
        run(&[], &format!("link add {ours} type veth peer name cable netns {pid}"));
        run(&[], &format!("addr add {}/30 dev {ours}", this.our_address));
        run(&[], &format!("link set {ours} up"));
        let inside = this.enter();
        run(&inside, "link set lo up");
        run(&inside, &format!("addr add {}/30 dev cable", this.address));
        run(&inside, "link set cable up");
        this
    }

    /// The words that run a command in it.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["nsenter", "--target", &pid, "--net"].map(str::to_owned).into()
    }

    /// From now on every packet, either way, goes to nobody, and no error tells of it.
    pub fn drop_packets(&self) {
        let lose = |to: Ipv4Addr, link: &str| format!("neigh replace {to} lladdr {NOBODY} dev {link} nud permanent");
        run(&[], &lose(self.address, &self.link));
        run(&self.enter(), &lose(self.our_address, "cable"));
    }

    /// Packets arrive again.
    pub fn deliver_packets(&self) {
        run(&[], &format!("neigh del {} dev {}", self.address, self.link));
        run(&self.enter(), &format!("neigh del {} dev cable", self.our_address));
    }
}

fn run(inside: &[String], arguments: &str) {
    let words: Vec<&str> = inside
        .iter()
        .map(String::as_str)
        .chain(["ip"])
        .chain(arguments.split(' '))
        .collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{} (tests/run.sh installs it): {error}", words[0]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", words.join(" "));
}
