//! What Forebay writes is its user's alone, whatever the umask; what others can read of the rest, it warns of.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::{
    forebay::{PATH, SECRET, Setup, kafka_route, wait_until},
    http, program,
    sender::{sign, webhook},
};

const SOON: Duration = Duration::from_secs(30);
const AWAY: &str = "127.0.0.1:1";

/// A shell without any umask that becomes the program.
fn without_umask() -> Vec<String> {
    ["sh", "-c", "umask 0; exec \"$@\"", "sh"].map(str::to_owned).to_vec()
}

/// A configuration in a directory that everybody may enter.
fn open_setup() -> Setup {
    let mut setup = Setup::publishing(&kafka_route("events", AWAY, "none"));
    chmod(setup.dir.path(), 0o755);
    setup.wrapper = without_umask();
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    setup
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(below(&path)),
            false => all.push(path),
        }
    }
    all
}

/// Fails where a directory is not 0700, or a file not 0600.
fn assert_private(dir: &Path) {
    for path in below(dir) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{:o} {}", mode(&path), path.display());
    }
}

fn post(setup: &Setup, body: &str) -> u16 {
    let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
    http::request(setup.public, "POST", PATH, &headers, body).unwrap().code
}

fn check(setup: &Setup) -> String {
    let output = program::forebay()
        .args(["check", "--config"])
        .arg(setup.config())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_spool_is_its_users_alone_without_any_umask() {
    let setup = open_setup();
    let mut forebay = setup.start();
    assert_eq!(post(&setup, &webhook(1, "feed")), 200);
    wait_until("the account is kept", SOON, || {
        setup.spool().join("accounts.json").exists()
    });
    assert!(forebay.terminate(SOON).success(), "{}", forebay.log());
    assert_private(setup.spool());
    for file in [
        "LOCK",
        "replica",
        "routes.json",
        "accounts.json",
        "segments",
        "cursors",
        "superblock",
    ] {
        assert!(
            setup.spool().join(file).exists(),
            "{file} in {:?}",
            below(setup.spool())
        );
    }
}

#[test]
fn what_dev_puts_down_is_its_users_alone_without_any_umask() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = program::forebay_by(&without_umask())
        .args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--secret", "env:HOOK_SECRET", "--json", "--no-samples"])
        .env("HOOK_SECRET", SECRET)
        .env("TMPDIR", temp.path())
        .spawn();
    let segments = || {
        let dir = fs::read_dir(temp.path()).unwrap().next()?.unwrap().path();
        dir.join("spool/cursors").is_dir().then_some(dir)
    };
    wait_until("dev has a spool", SOON, || segments().is_some());
    assert_private(&segments().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[allow(clippy::print_stderr, reason = "what was not tried is said")]
fn what_others_can_read_is_warned_of_and_left_as_it_is() {
    let mut setup = open_setup();
    let mut forebay = setup.start();
    assert_eq!(post(&setup, &webhook(1, "feed")), 200);
    assert!(forebay.terminate(SOON).success(), "{}", forebay.log());
    let (config, spool) = (setup.config(), setup.spool().to_owned());
    let of_config = "every user of this machine can read it, and it holds secrets (endpoints.acme.secrets)";
    let of_spool = "spool.dir: every user of this machine can read";
    // Below a directory that only its user enters nothing is read by others.
    let is_entered = std::env::temp_dir().ancestors().all(|dir| mode(dir) & 0o001 != 0);
    if !is_entered {
        eprintln!(
            "not tried: the directory for temporary files is one that others do not enter, so there is nothing to warn of"
        );
    }

    // As an earlier version left them, and as a volume of Kubernetes is.
    for (config_mode, dirs, files, config_said, spool_said) in [
        (0o644, 0o755, 0o644, true, true),
        (0o640, 0o750, 0o640, false, false),
        (0o600, 0o2775, 0o660, false, false),
        (0o600, 0o755, 0o600, false, false),
    ] {
        chmod(&config, config_mode);
        for path in below(&spool) {
            chmod(&path, if path.is_dir() { dirs } else { files });
        }
        let said = check(&setup);
        assert_eq!(
            said.contains(of_config),
            config_said && is_entered,
            "{config_mode:o}: {said}"
        );
        assert_eq!(
            said.contains(of_spool),
            spool_said && is_entered,
            "{dirs:o} {files:o}: {said}"
        );
        assert!(!said.contains(SECRET), "{said}");
    }

    // Neither tightened nor loosened.
    chmod(&config, 0o644);
    let segments = spool.join("segments");
    let segment = below(&segments).pop().unwrap();
    for (dir, file) in [(0o750, 0o640), (0o700, 0o400 | 0o200), (0o755, 0o644)] {
        chmod(&segments, dir);
        chmod(&segment, file);
        setup.wrapper = without_umask();
        let mut forebay = setup.start();
        assert_eq!((mode(&segments), mode(&segment)), (dir, file));
        let said = forebay.log();
        assert_eq!(said.contains(of_config), is_entered, "{said}");
        assert_eq!(said.contains(of_spool), is_entered && file & 0o004 != 0, "{said}");
        assert!(forebay.terminate(SOON).success(), "{}", forebay.log());
    }
}
