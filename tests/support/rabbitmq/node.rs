//! One node: its files, its environment, its process.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    super::{
        fetched, http,
        process::{Process, free_port, mortal, spawn},
        tls::Certificates,
    },
    Namespace, PASSWORD, USER, Version, wait_until,
};

/// Where the distribution's package puts its programs.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// Where it puts RabbitMQ itself, in a directory with its version.
const LIBRARIES: &str = "/usr/lib/rabbitmq/lib";
/// Of RabbitMQ's own plugins, those that a node is given. It looks through all that it finds, for seconds.
const PLUGINS: [&str; 6] = [
    "rabbitmq_auth_mechanism_ssl-",
    "rabbitmq_codegen-",
    "rabbitmq_management-",
    "rabbitmq_management_agent-",
    "rabbitmq_prelaunch-",
    "rabbitmq_web_dispatch-",
];

/// What the nodes of a cluster have in common.
pub(super) struct Surroundings<'a> {
    dir: &'a Path,
    /// The address that everything listens on.
    host: Ipv4Addr,
    namespace: Option<&'a Namespace>,
    certificates: Option<&'a Certificates>,
    epmd_port: u16,
    /// What is `/` to the nodes, where that is not ours.
    root: Option<PathBuf>,
}

/// Shell: makes the root directory `$1` one that programs run in, with the directory `$2` in it where it is here, for
/// what it then becomes and for nobody else.
const ENTER: &str = "root=$1; dir=$2; shift 2; mount --make-rprivate / && mount --rbind /dev \"$root/dev\" && \
                     mount -t proc proc \"$root/proc\" && mkdir -p \"$root$dir\" && \
                     mount --bind \"$dir\" \"$root$dir\" && exec chroot \"$root\" \"$@\"";

pub(super) struct Node {
    pub name: String,
    pub amqp: SocketAddr,
    pub tls: Option<SocketAddr>,
    pub management: SocketAddr,
    programs: PathBuf,
    log: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// See [`Surroundings::inside`].
    inside: Vec<String>,
    process: Option<Process>,
}

impl<'a> Surroundings<'a> {
    pub fn prepare(
        dir: &'a Path,
        version: Version,
        namespace: Option<&'a Namespace>,
        certificates: Option<&'a Certificates>,
    ) -> Self {
        let root = match version {
            Version::Usual => None,
            Version::V4 => Some(fetched::by("tests/rabbitmq-4.sh", &[])),
        };
        install(dir, root.as_deref().unwrap_or(Path::new("/")));
        Self {
            root,
            dir,
            host: namespace.map_or(Ipv4Addr::LOCALHOST, |namespace| namespace.address),
            namespace,
            certificates,
            epmd_port: free_port(),
        }
    }

    /// Starts the port mapper.
    pub fn epmd(&self) -> Process {
        let port = self.epmd_port.to_string();
        let mut command = command(&self.inside(), Path::new("epmd"));
        command.args(["-port", &port, "-address", "127.0.0.1"]);
        Process::run(command, &self.dir.join("epmd.log"))
    }

    /// Words that come before each command.
    fn inside(&self) -> Vec<String> {
        let mut words = self.namespace.map(Namespace::enter).unwrap_or_default();
        if let Some(root) = &self.root {
            let [root, dir] = [root, self.dir].map(|path| path.to_str().unwrap());
            words.extend(["unshare", "--mount", "sh", "-c", ENTER, "sh", root, dir].map(str::to_owned));
        }
        words
    }
}

/// Puts a RabbitMQ with few plugins into `dir`: a distribution's own, by links, whose root directory is `root`.
fn install(dir: &Path, root: &Path) {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir)
            .unwrap_or_else(|error| panic!("{} (tests/run.sh installs rabbitmq-server): {error}", dir.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    // As the nodes see it.
    let inside = |path: &Path| Path::new("/").join(path.strip_prefix(root).unwrap());
    let server = list(&at(LIBRARIES)).pop().expect("a version of RabbitMQ");
    fs::create_dir_all(dir.join("plugins")).unwrap();
    // Copies: a script looks for the rest beside what a link leads to.
    fs::create_dir(dir.join("bin")).unwrap();
    for script in list(&at(PROGRAMS)) {
        fs::copy(&script, dir.join("bin").join(name(&script))).unwrap();
    }
    symlink(inside(&server.join("escript")), dir.join("escript")).unwrap();
    for plugin in list(&server.join("plugins")) {
        let name = name(&plugin);
        if !name.starts_with("rabbitmq_") || PLUGINS.iter().any(|wanted| name.starts_with(wanted)) {
            symlink(inside(&plugin), dir.join("plugins").join(&name)).unwrap();
        }
    }
}

fn command(inside: &[String], program: &Path) -> Command {
    match inside.split_first() {
        None => mortal(program),
        Some((first, rest)) => {
            let mut command = mortal(first);
            command.args(rest).arg(program);
            command
        }
    }
}

impl Node {
    pub fn write(surroundings: &Surroundings, number: usize) -> Self {
        let dir = surroundings.dir.join(format!("node-{number}"));
        fs::create_dir(&dir).unwrap();
        let address = || SocketAddr::new(IpAddr::V4(surroundings.host), free_port());
        let (amqp, management) = (address(), address());
        let tls = surroundings.certificates.map(|_| address());
        fs::write(
            dir.join("rabbitmq.conf"),
            configuration(surroundings, amqp, management, tls),
        )
        .unwrap();
        let plugins = "[rabbitmq_management, rabbitmq_auth_mechanism_ssl].";
        fs::write(dir.join("enabled_plugins"), plugins).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let name = format!("forebay{number}@localhost");
        let home = surroundings.dir.to_str().unwrap().to_owned();
        let environment = vec![
            // The nodes' common secret is made in it.
            ("HOME", home),
            ("ERL_EPMD_PORT", surroundings.epmd_port.to_string()),
            // Ours is there.
            ("ERL_FLAGS", "-start_epmd false".into()),
            ("RABBITMQ_NODENAME", name.clone()),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            (
                "RABBITMQ_PLUGINS_DIR",
                surroundings.dir.join("plugins").to_str().unwrap().to_owned(),
            ),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            // The script then becomes the node instead of watching over it, and dies with us.
            ("RABBITMQ_ALLOW_INPUT", "1".into()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput -kernel inet_dist_use_interface {127,0,0,1}".into(),
            ),
        ];
        Self {
            name,
            amqp,
            tls,
            management,
            programs: surroundings.dir.join("bin"),
            log: dir.join("output.log"),
            environment,
            inside: surroundings.inside(),
            process: None,
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(&self.inside, &self.programs.join(program));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start(&mut self) {
        self.process = Some(Process::run(self.command("rabbitmq-server"), &self.log));
    }

    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("it runs").signal(name);
    }

    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command("rabbitmqctl");
        command
            .arg("--quiet")
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let output = spawn(command).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "rabbitmqctl {}: {said}{errors}",
            arguments.join(" ")
        );
        said
    }

    /// Waits until the node takes connections and answers questions.
    pub fn wait_until_ready(&self, within: Duration) {
        let path = format!("/api/health/checks/port-listener/{}", self.amqp.port());
        let authorization = super::vhost::authorization(USER, PASSWORD);
        let waited = wait_until(&format!("{} serves", self.name), within, || {
            let answer = http::request(self.management, "GET", &path, &authorization, "");
            answer.is_some_and(|answer| answer.code == 200)
        });
        if let Err(problem) = waited {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{problem}\n{log}");
        }
    }
}

fn configuration(
    surroundings: &Surroundings,
    amqp: SocketAddr,
    management: SocketAddr,
    tls: Option<SocketAddr>,
) -> String {
    let mut text = format!(
        "listeners.tcp.1 = {amqp}\nmanagement.tcp.ip = {}\nmanagement.tcp.port = {}\n\
         default_user = {USER}\ndefault_pass = {PASSWORD}\ndefault_user_tags.administrator = true\n\
         disk_free_limit.absolute = 1MB\nlog.file.level = info\n",
        management.ip(),
        management.port(),
    );
    if let (Some(tls), Some(certificates)) = (tls, surroundings.certificates) {
        text.push_str(&format!(
            "listeners.ssl.1 = {tls}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n",
            certificates.path("ca.pem").display(),
            certificates.path("server.pem").display(),
            certificates.path("server.key").display(),
        ));
    }
    text
}
