//! `frejus lab`: a described internet is built, changed and taken down, as a tester does it.

use std::process::Command;

use frejus_netns::ability;
use frejus_netns::daemon::binary;
use frejus_netns::run::Output;
use serde_json::Value;

/// Where laboratories lie.
const ROOT: &str = "/run/frejus/lab";

/// A laboratory of this test; down at the end, whatever happens.
struct Built {
    name: String,
}

impl Built {
    fn new(name: &str) -> Option<Self> {
        let name = format!("{name}-{}", std::process::id());
        ability::present(&name).then_some(Self { name })
    }

    /// `frejus lab VERB...`.
    fn lab(&self, argv: &[&str]) -> Output {
        let start = std::time::Instant::now();
        let mut command = Command::new(binary());
        let run =
            command.args(["lab", "--name", &self.name]).args(argv).output().expect("the binary is there");
        Output {
            code: run.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&run.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&run.stderr).into_owned(),
            took: start.elapsed(),
        }
    }

    fn ok(&self, argv: &[&str]) -> String {
        let output = self.lab(argv);
        assert_eq!(output.code, 0, "frejus lab {}: {output}", argv.join(" "));
        output.stdout
    }

    fn status(&self) -> Value {
        let value: Value = serde_json::from_str(&self.ok(&["status", "--json"])).expect("one JSON object");
        assert_eq!(value["schema"], 1);
        value
    }

    /// A topology in a file of its own.
    fn file(&self, text: &str) -> String {
        let path = std::env::temp_dir().join(format!("{}.toml", self.name));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        path.to_string_lossy().into_owned()
    }

    fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|n| n.contains(&self.name))
            .collect()
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        self.lab(&["down"]);
        std::fs::remove_file(std::env::temp_dir().join(format!("{}.toml", self.name))).ok();
        std::fs::remove_dir_all(format!("{ROOT}/{}", self.name)).ok();
    }
}

fn example(name: &str) -> String {
    format!("{}/../../lab/topologies/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn two_homes_are_built_changed_and_taken_down() {
    let Some(built) = Built::new("two") else { return };
    let said = built.ok(&["up", &example("two-homes")]);
    assert!(said.contains("nat home-a: port-restricted") && said.contains("node b: joined, ready"), "{said}");
    let again = built.lab(&["up", &example("two-homes")]);
    assert_eq!(again.code, 11, "it is up: {again}");

    let status = built.status();
    assert!(
        status["hosts"].as_array().unwrap().iter().all(|host| host["node"]["state"] == "ready"),
        "{status}"
    );
    let answer = built.ok(&["shell", "a", "--", "frejus", "ping", "b", "--until-direct", "-c", "20"]);
    assert!(answer.contains("direct"), "{answer}");
    let socket = built.ok(&["shell", "b", "--", "sh", "-c", "frejus status --json"]);
    assert!(socket.contains("\"name\":\"b\""), "the socket is b's: {socket}");

    let ping =
        |host: &str, to: &str| built.lab(&["shell", host, "--", "ping", "-c", "1", "-W", "1", to]).code == 0;
    assert!(ping("a", "203.0.113.101"));
    built.ok(&["blackout", "s"]);
    assert!(!ping("a", "203.0.113.101"));
    built.ok(&["light", "s"]);
    built.ok(&["link", "a", "--delay", "100ms", "--rate", "10M"]);
    built.ok(&["nat", "b", "symmetric-random", "--rejects"]);
    built.ok(&["cut", "a", "b"]);
    assert_eq!(built.lab(&["nat", "b", "open"]).code, 2, "addresses would change");
    assert_eq!(built.lab(&["cut", "a", "nobody"]).code, 2);
    let status = built.status();
    assert_eq!(status["nats"][0]["link"]["delay_ms"], 100);
    assert_eq!(status["nats"][1]["class"], "symmetric-random");
    assert_eq!(status["cuts"][0], serde_json::json!(["a", "b"]));
    built.ok(&["mend", "a", "b"]);

    let processes: Vec<_> =
        status["hosts"].as_array().unwrap().iter().map(|h| h["node"]["pid"].clone()).collect();
    built.ok(&["down"]);
    assert_eq!(built.leftovers(), Vec::<String>::new());
    assert!(!std::path::Path::new(&format!("{ROOT}/{}", built.name)).exists());
    for pid in processes {
        // A zombie, whose parent is not ours to mend, has no program any more.
        assert!(std::fs::read_link(format!("/proc/{pid}/exe")).is_err(), "process {pid} is still there");
    }
    assert_eq!(built.lab(&["status"]).code, 3, "there is none");
}

#[test]
fn a_node_that_gets_nowhere_is_named_and_the_laboratory_stays() {
    let Some(built) = Built::new("stuck") else { return };
    // Not even a proxy: nothing passes.
    let file = built.file(
        "[[nat]]\nname = 'wall'\nclass = 'port-restricted'\nudp = false\ntcp = []\n[[host]]\nname = 's'\n\
         [[host]]\nname = 'a'\nbehind = 'wall'\n[[node]]\nhost = 's'\nfounder = true\n[[node]]\nhost = 'a'\n",
    );
    let up = built.lab(&["up", &file]);
    assert_eq!(up.code, 12, "{up}");
    assert!(up.stdout.contains("node a: NOT READY: ") && up.stderr.contains("1 of 2 nodes"), "{up}");
    assert_eq!(built.status()["hosts"][0]["node"]["state"], "ready", "s is up all the same");
    let log = std::fs::read_to_string(format!("{ROOT}/{}/logs/a-frejus.log", built.name)).unwrap();
    assert!(log.contains("frejus join failed:") && log.contains("no answer"), "{log}");
    let nobody = built.lab(&["reboot", "nobody"]);
    assert_eq!(nobody.code, 2, "{nobody}");
    assert!(nobody.stderr.contains("there is no host or NAT `nobody`: say one of a, wall"), "{nobody}");
}

#[test]
fn what_a_dead_run_left_is_removed_by_the_next() {
    let Some(built) = Built::new("dead") else { return };
    let space = format!("frlab-{}-home", built.name);
    assert!(Command::new("ip").args(["netns", "add", &space]).status().unwrap().success());
    let file =
        built.file("[[nat]]\nname = 'home'\nclass = 'full-cone'\n[[host]]\nname = 'a'\nbehind = 'home'\n");
    built.ok(&["up", &file]);
    built.ok(&["shell", "home", "--", "nft", "list", "table", "ip", "boxnat"]);
    built.ok(&["down"]);
    assert_eq!(built.leftovers(), Vec::<String>::new());
}

#[test]
fn a_topology_that_cannot_be_built_leaves_nothing_but_logs() {
    let Some(built) = Built::new("bad") else { return };
    let file =
        built.file("[[host]]\nname = 'a'\n[[node]]\nhost = 'a'\nfounder = true\noptions = ['--mtu', '1']\n");
    let up = built.lab(&["up", &file]);
    assert_ne!(up.code, 0, "{up}");
    assert!(up.stderr.contains("logs/a-frejus.log"), "{up}");
    assert_eq!(built.leftovers(), Vec::<String>::new());
    let log = std::fs::read_to_string(format!("{ROOT}/{}/logs/a-frejus.log", built.name)).unwrap();
    assert!(log.contains("1280"), "why is in the log: {log}");
    assert_eq!(built.lab(&["up", &built.file("[[host]]\nnmae = 'a'")]).code, 10);
}
