use std::fmt::Write as _;

use serde_json::json;

use super::*;

/// What a guest prints on which everything works; each test spoils something.
struct Guest {
    release: &'static str,
    sections: Vec<(String, String, i32)>,
}

impl Guest {
    fn well(release: &'static str, tcx: bool) -> Self {
        let mut guest = Self {
            release,
            sections: Vec::new(),
        };
        guest.print("kernel", &release);
        for section in ["modules", "network", "b1", "b2"] {
            guest.print(section, &"");
        }
        let found = if tcx {
            "works"
        } else {
            "not available: Invalid argument (os error 22)"
        };
        guest.print(
            "check",
            &json!({"findings": [
                {"name": "maps", "status": "ok", "found": "all are created", "remedy": ""},
                {"name": "tcx", "status": "ok", "found": found, "remedy": ""},
            ]}),
        );
        let tc = if tcx { "tcx" } else { "clsact" };
        guest.pass("tc", &[("tc ingress", tc), ("tc egress", tc)]);
        guest.print("observe/start", &"");
        guest.print("observe/load", &load(400, 0));
        guest.print("observe/stop", &"");
        guest.print(
            "observe/report",
            &json!({"groups": [{"streams": 300}, {"streams": 100}]}),
        );
        guest.pass("xdp", &[("xdp", "native"), ("tc egress", tc)]);
        guest.print("end", &"");
        guest
    }

    fn pass(&mut self, hook: &str, attachments: &[(&str, &str)]) {
        self.print(&format!("{hook}/start"), &"");
        self.counted(hook, "l4", [400, 0]);
        // Counters only grow: 200 more for each.
        self.counted(hook, "l7", [600, 200]);
        let attachments: Vec<Value> = attachments
            .iter()
            .map(|(hook, mode)| json!({"hook": hook, "mode": mode}))
            .collect();
        self.print(
            &format!("{hook}/status"),
            &json!({"attachments": attachments}),
        );
        self.print(&format!("{hook}/stop"), &"");
        self.print(&format!("{hook}/log"), &"starting\nready");
    }

    fn counted(&mut self, hook: &str, mode: &str, [b1, b2]: [u64; 2]) {
        let got = if mode == "l4" { [400, 0] } else { [200, 200] };
        self.print(&format!("{hook}/{mode}/mode"), &"");
        self.print(&format!("{hook}/{mode}/load"), &load(got[0], got[1]));
        self.print(
            &format!("{hook}/{mode}/services"),
            &json!({"services": [{"mode": mode, "counters": {"streams": b1 + b2}}]}),
        );
        self.print(
            &format!("{hook}/{mode}/backends"),
            &json!({"backends": [
                {"address": "10.9.1.2:50051", "streams": b1},
                {"address": "10.9.2.2:50051", "streams": b2},
            ]}),
        );
    }

    /// Adds a section, or puts another in its place.
    fn print(&mut self, name: &str, text: &impl ToString) {
        let text = text.to_string();
        match self.sections.iter_mut().find(|it| it.0 == name) {
            Some(section) => section.1 = text,
            None => self.sections.push((name.to_owned(), text, 0)),
        }
    }

    fn fail(&mut self, name: &str) {
        for section in self.sections.iter_mut().filter(|it| it.0 == name) {
            section.2 = 1;
        }
    }

    fn judged(&self) -> Verdict {
        let mut log = String::new();
        for (name, text, status) in &self.sections {
            let _ = writeln!(
                log,
                "@@ begin {name}\n{text}\n@@ errors {name}\n@@ end {name} {status}"
            );
        }
        let kernel = Kernel::of(&format!("linux-image-{}", self.release)).expect("a kernel");
        judge(&kernel, &Console::parse(&log), None)
    }
}

fn load(b1: u64, b2: u64) -> Value {
    let mut per_backend = serde_json::Map::new();
    for (name, ok) in [("b1", b1), ("b2", b2)] {
        if ok > 0 {
            per_backend.insert(name.to_owned(), ok.into());
        }
    }
    json!({"failed": 0, "streams": b1 + b2, "per_backend": per_backend})
}

const OLD: &str = "6.1.0-56-cloud-amd64";
const NEW: &str = "6.12.117+deb12-cloud-amd64";

#[track_caller]
fn objects(guest: &Guest, expected: &str) {
    let verdict = guest.judged();
    assert!(!verdict.passed);
    let all = verdict.objections.join("\n");
    assert!(all.contains(expected), "{expected}: {all}");
}

#[test]
fn a_kernel_on_which_all_holds_passes_with_and_without_tcx() {
    for (release, tcx, hook) in [(OLD, false, "clsact"), (NEW, true, "tcx")] {
        let verdict = Guest::well(release, tcx).judged();
        assert_eq!(verdict.objections, Vec::<String>::new());
        assert!(verdict.passed);
        assert_eq!(verdict.checks, (2, 2));
        assert_eq!(verdict.observed, Some((400, 400)));
        assert_eq!(verdict.passes[0].attached, hook);
        assert_eq!(verdict.passes[1].attached, "native");
        let l7 = verdict.passes[1].l7.as_ref();
        assert_eq!(l7.map(|it| (it.streams(), it.answers())), Some((400, 400)));
    }
}

#[test]
fn another_hook_than_the_kernels_best_is_an_objection() {
    objects(&Guest::well(OLD, true), "tcx works");
    objects(&Guest::well(NEW, false), "attached as `clsact`");
    let mut generic = Guest::well(NEW, true);
    generic.print(
        "xdp/status",
        &json!({"attachments": [{"hook": "xdp", "mode": "generic"}]}),
    );
    objects(&generic, "attached as `generic`");
}

#[test]
fn one_stream_miscounted_is_an_objection() {
    let mut fewer = Guest::well(OLD, false);
    fewer.counted("xdp", "l7", [599, 200]);
    objects(&fewer, "xdp: l7: the kernel counted");
    let mut elsewhere = Guest::well(OLD, false);
    elsewhere.counted("tc", "l4", [399, 1]);
    objects(&elsewhere, "tc: l4: the kernel counted");
    let mut service = Guest::well(OLD, false);
    service.print(
        "tc/l4/services",
        &json!({"services": [{"mode": "l4", "counters": {"streams": 401}}]}),
    );
    objects(&service, "the service counted 401 of 400");
    let mut unseen = Guest::well(OLD, false);
    unseen.print("observe/report", &json!({"groups": []}));
    objects(&unseen, "saw 0 of 400");
}

#[test]
fn requests_in_another_mode_than_meant_are_an_objection() {
    let mut guest = Guest::well(NEW, true);
    let service = json!({"mode": "l4", "counters": {"streams": 800}});
    guest.print("xdp/l7/services", &json!({"services": [service]}));
    objects(&guest, "xdp: the service was not in mode l7");
}

#[test]
fn a_failed_request_and_an_unanswered_run_are_objections() {
    let mut failed = Guest::well(NEW, true);
    let mut report = load(400, 0);
    report["failed"] = 1.into();
    failed.print("tc/l4/load", &report);
    objects(&failed, "1 requests failed");
    let mut nothing = Guest::well(NEW, true);
    nothing.counted("tc", "l4", [0, 0]);
    nothing.print("tc/l4/load", &load(0, 0));
    objects(&nothing, "nothing was answered");
}

#[test]
fn a_check_that_is_not_ok_is_an_objection_in_its_own_words() {
    let mut guest = Guest::well(OLD, false);
    guest.print(
        "check",
        &json!({"findings": [
            {"name": "maps", "status": "fail", "found": "Invalid argument (os error 22)", "remedy": ""},
        ]}),
    );
    guest.fail("check");
    objects(&guest, "check: maps: Invalid argument");
    assert_eq!(guest.judged().checks, (0, 1));
}

#[test]
fn a_daemon_that_does_not_start_is_quoted() {
    let mut guest = Guest::well(OLD, false);
    guest.fail("tc/start");
    guest.print("tc/log", &"starting\nevenkeel: the verifier said no");
    objects(&guest, "it said: evenkeel: the verifier said no");
    assert_eq!(guest.judged().objections.len(), 1);
}

#[test]
fn a_guest_that_dies_half_way_fails() {
    let mut guest = Guest::well(NEW, true);
    guest.sections.truncate(12);
    objects(&guest, "never came to `end`");
    guest.sections.clear();
    objects(&guest, "it did not start");
    assert_eq!(guest.judged().objections.len(), 1);
    assert_eq!(guest.judged().checks, (0, 0));
}

#[test]
fn another_kernel_than_the_one_meant_fails() {
    let mut guest = Guest::well(NEW, true);
    guest.print("kernel", &OLD);
    objects(&guest, "Linux 6.1.0-56-cloud-amd64 booted");
}

#[test]
fn a_section_that_the_console_lost_is_no_reason_to_pass() {
    let well = Guest::well(NEW, true);
    for index in 0..well.sections.len() {
        let mut guest = Guest::well(NEW, true);
        let (name, ..) = guest.sections.remove(index);
        assert_eq!(guest.judged().passed, name.ends_with("/log"), "{name}");
    }
}
