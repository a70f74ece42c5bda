//! Disks that lose, fill up, fail and dawdle; and what a spool on them holds in the end.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay_event::Event;
use forebay_log::{LogObserver, LogOptions, Spool};

use super::sender::webhook;

/// Of a directory that disks are mounted in; then comes the id of the process that it belongs to.
const DIR_PREFIX: &str = "forebay-disk-";

/// Whether disks can be mounted here. Fails where they cannot, unless `FOREBAY_TEST_NO_ROOT` allows it: then it says
/// what is left out.
#[allow(clippy::print_stderr, reason = "what is left out is said")]
pub fn can_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing: Vec<&str> = [
        ("root", root),
        ("/dev/loop-control", Path::new("/dev/loop-control").exists()),
    ]
    .into_iter()
    .filter_map(|(what, there)| (!there).then_some(what))
    .collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(" and ");
    assert!(
        std::env::var_os("FOREBAY_TEST_NO_ROOT").is_some(),
        "{test}: to mount a disk, {missing} is needed; FOREBAY_TEST_NO_ROOT=1 leaves such tests out"
    );
    eprintln!("LEFT OUT, for want of {missing}: {test}");
    false
}

/// Whether the kernel has btrfs. Where it has not, what is left out is named.
#[allow(clippy::print_stderr, reason = "what is left out is said")]
pub fn has_btrfs(test: &str) -> bool {
    // The kernel learns of it with its module, if there is one.
    let _ = Command::new("modprobe").args(["--quiet", "btrfs"]).output();
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = known.lines().any(|line| line.trim() == "btrfs");
    if !has {
        eprintln!("LEFT OUT, for want of btrfs in this kernel: {test}");
    }
    has
}

/// Runs a program and fails when it does.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (tests/run.sh installs what is missing): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a test's path is UTF-8")
}

/// A directory for images and the places they are mounted at. Drop what is mounted in it before.
pub fn scratch() -> tempfile::TempDir {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    let prefix = format!("{DIR_PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a directory")
}

/// Unmounts what earlier runs left that were killed.
fn sweep() {
    for line in fs::read_to_string("/proc/mounts").unwrap_or_default().lines() {
        let at = line.split(' ').nth(1).unwrap_or_default();
        let owner = at.split_once(DIR_PREFIX).and_then(|(_, rest)| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("umount").args(["--lazy", at]).status();
        }
    }
}

/// A mounted file system; unmounted when dropped.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// An image, through a loop device.
    pub fn image(image: &Path, at: &Path, options: &str) -> Self {
        Self::at(at, &["-t", "ext4", "-o", &format!("loop,{options}"), text(image)])
    }

    /// A btrfs of this size, whose image is in `dir`.
    pub fn new_btrfs(dir: &Path, size: &str) -> Self {
        let image = dir.join("image");
        run("truncate", &["-s", size, text(&image)]);
        run("mkfs.btrfs", &["-q", "--mixed", text(&image)]);
        Self::at(&dir.join("disk"), &["-t", "btrfs", "-o", "loop", text(&image)])
    }

    pub fn tmpfs(at: &Path, size: &str) -> Self {
        Self::at(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    fn at(at: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(at).expect("the place to mount at");
        run("mount", &[arguments, &[text(at)]].concat());
        Self { at: at.into() }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmount = |options: &[&str]| Command::new("umount").args(options).arg(&self.at).output();
        // Lazily where something still holds it: a process that was killed a moment ago.
        if !unmount(&[]).is_ok_and(|output| output.status.success()) {
            let _ = unmount(&["--lazy"]);
        }
    }
}

/// Makes a sparse image with ext4 on it.
pub fn make_image(path: &Path, size: &str, options: &[&str]) {
    run("truncate", &["-s", size, text(path)]);
    run(
        "mkfs.ext4",
        &[&["-q", "-F", "-m", "0"], options, &[text(path)]].concat(),
    );
}

/// Copies what has reached the device of a mounted image.
pub fn copy_image(image: &Path, to: &Path) {
    run("cp", &["--sparse=always", text(image), text(to)]);
}

/// Where the newest webhook is in an image that is filled from front to back. Quick, so that little comes behind it
/// before the device ends there: what was acknowledged must not be cut off.
pub fn end_of_data(image: &Path) -> u64 {
    const CHUNK: usize = 64 << 10;
    const MARK: &[u8] = b"\"feedId\"";
    let bytes = fs::read(image).unwrap();
    let empty = vec![0; CHUNK];
    let begins = (0..bytes.len()).step_by(CHUNK).rev();
    let mut newest = begins.filter_map(|begin| {
        let chunk = &bytes[begin..bytes.len().min(begin + CHUNK)];
        if chunk == &empty[..chunk.len()] {
            return None;
        }
        let found = chunk.windows(MARK.len()).rposition(|window| window == MARK)?;
        Some((begin + found) as u64)
    });
    newest.next().expect("a webhook is on the device")
}

/// Gives the device of a mounted image another size.
pub fn resize_device(image: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    file.set_len(bytes.next_multiple_of(4096)).unwrap();
    let found = Command::new("losetup")
        .args(["--noheadings", "--output", "NAME", "--associated"])
        .arg(image)
        .output();
    let device = String::from_utf8(found.unwrap().stdout).unwrap();
    run("losetup", &["--set-capacity", device.trim()]);
}

/// What the spool in a directory holds.
#[derive(Debug, Default)]
pub struct Survived {
    pub feed_ids: HashSet<String>,
    /// When each record was recorded, in milliseconds, in order.
    pub recorded_ms: Vec<i64>,
    /// Records that the log counts and nobody can read.
    pub missing: u64,
    /// What recovery and reading found to be damaged.
    pub damage: usize,
}

struct Damage(AtomicUsize);

impl LogObserver for Damage {
    fn synced(&self, _: usize, _: Duration) {}

    fn damage(&self, _: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens the spool, as the next start would, and reads all of it: whole webhooks, in rising order.
pub fn survived(dir: &Path) -> Survived {
    const DEADLINE: Duration = Duration::from_secs(10);
    let damage = Arc::new(Damage(AtomicUsize::new(0)));
    let options = LogOptions {
        dir: dir.into(),
        bytes_max: 64 << 20,
        bulk_share_max: 0.5,
        segment_bytes: 16 << 20,
        replica: String::new(),
        numbers_from: 0,
        record_bytes_max: 0,
        hot_bytes_max: 0,
        readers_bytes_max: 8 << 20,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let spool = Spool::open(options, damage.clone()).unwrap_or_else(|error| panic!("{error}"));
        let state = spool.state();
        let mut survived = Survived::default();
        let mut reader = spool.reader(1);
        let mut newest = 0;
        let mut records = Vec::new();
        for _ in 0..state.records {
            let next = reader.next(1, usize::MAX, &mut records);
            match tokio::time::timeout(DEADLINE, next).await {
                Ok(result) => drop(result.expect("it is read")),
                // The rest is not there, whatever the log says of itself.
                Err(_) => break,
            }
            for record in records.drain(..) {
                assert!(record.sequence > newest, "{} comes after {newest}", record.sequence);
                newest = record.sequence;
                let event = Event::decode(&record.bytes).expect("an event");
                survived.recorded_ms.push(event.recorded.0);
                survived.feed_ids.insert(whole(&event));
            }
        }
        assert_eq!(newest.max(state.head), state.head, "nothing is beyond the head");
        spool.close().await;
        survived.missing = state.records - survived.recorded_ms.len() as u64;
        survived.damage = damage.0.load(Ordering::Relaxed);
        survived
    })
}

/// The feed id of an event that is byte for byte what a sender sends.
fn whole(event: &Event) -> String {
    let feed_id = event.feed_id.as_deref().expect("a feed id");
    let stream = event
        .stream_name
        .as_deref()
        .and_then(|name| name.strip_prefix("stream-"));
    let stream = stream
        .and_then(|number| number.parse().ok())
        .expect("a sender's stream");
    assert_eq!(
        event.body,
        webhook(stream, feed_id).as_bytes(),
        "the payload of {feed_id}"
    );
    feed_id.to_owned()
}

/// Runs a program under strace, which makes system calls fail or wait.
pub struct Strace {
    log: PathBuf,
}

impl Strace {
    /// `log` is where the calls are written.
    pub fn new(log: &Path) -> Self {
        Self { log: log.into() }
    }

    /// The words before the program's own. `faults` are as in strace's `inject=`.
    ///
    /// The program stays the child, strace watches from aside.
    pub fn wrapper(&self, faults: &[&str]) -> Vec<String> {
        const CALLS: &str = "trace=pwrite64,fdatasync,fsync,fallocate,ftruncate,unlink";
        let mut words: Vec<String> = [
            "strace",
            "-D",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-y",
            "-s",
            "0",
            "-e",
            "signal=none",
            "-e",
            CALLS,
        ]
        .map(str::to_owned)
        .into();
        for fault in faults {
            words.extend(["-e".into(), format!("inject={fault}")]);
        }
        words.extend(["-o".into(), text(&self.log).into()]);
        words
    }

    /// The calls so far, a line each.
    pub fn lines(&self) -> Vec<String> {
        // Not there before the first call.
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// How many calls a fault was put into.
    pub fn injected(&self) -> usize {
        self.lines().iter().filter(|line| is_injected(line)).count()
    }

    /// The calls on the segments that began after the first fault. A segment whose creation failed may be unlinked.
    pub fn after_the_fault(&self) -> Vec<String> {
        let lines = self.lines();
        let after = lines.iter().skip_while(|line| !is_injected(line)).skip(1);
        after
            .filter(|line| line.contains("/segments") && !line.contains("resumed>") && !line.contains(" unlink("))
            .cloned()
            .collect()
    }
}

/// Whether strace meddled with this call.
fn is_injected(line: &str) -> bool {
    line.ends_with("(INJECTED)") || line.ends_with("(DELAYED)")
}
