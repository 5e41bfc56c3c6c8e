//! Whether the certificates that a release is made with last until it is over: one that ends before keeps it from going back.

use std::collections::BTreeMap;

use pointsman_core::lasting::{self, Lasting};
use pointsman_core::{Code, HostName, Plan, Problem};
use pointsman_proto::v1;

/// When pointsman's own certificates end, in seconds since 1970, as far as that is known.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// The coordinator's, with its name.
    pub own: Option<(String, i64)>,
    /// Those of agents. An older one says nothing.
    pub agents: BTreeMap<HostName, i64>,
}

impl Ends {
    /// Notes what an agent says of its own.
    pub fn note(&mut self, host: &HostName, status: &v1::AgentStatus) {
        if status.certificate_ends_s > 0 {
            self.agents.insert(host.clone(), status.certificate_ends_s);
        }
    }

    /// Refuses a release that could last longer than a certificate which it needs.
    pub fn outlast(&self, plan: &Plan) -> Result<(), Problem> {
        let now_s = seconds(plan.created_at.0);
        let longest_s = seconds(plan.longest_ms());
        let agents = self.agents.iter().filter(|(host, _)| plan.hosts().any(|asked| asked == *host));
        let agents = agents.map(|(host, end_s)| (host.as_str(), *end_s));
        let own = self.own.iter().map(|(name, end_s)| (name.as_str(), *end_s));
        let mut short: Vec<(&str, i64)> = own
            .chain(agents)
            .map(|(name, end_s)| (name, end_s.saturating_sub(now_s)))
            .filter(|(_, left_s)| *left_s <= longest_s)
            .collect();
        short.sort_by_key(|(_, left_s)| *left_s);
        let Some((name, left_s)) = short.first().copied() else { return Ok(()) };
        let message = format!(
            "the certificate of `{name}` {}, before a release that may take {} could be over",
            lasting::ends(left_s),
            lasting::span(longest_s)
        );
        let problem = Problem::new(Code::CertificateEnds, message)
            .cause("without it nothing could be ordered any more, the way back neither")
            .hint(lasting::renewal(name));
        let others = short.iter().skip(1);
        Err(others.fold(problem, |problem, (name, left_s)| {
            problem.cause(format!("the certificate of `{name}` {}", lasting::ends(*left_s)))
        }))
    }
}

/// What a diagnosis says of the certificate of a part that is called `name`.
pub fn finding(subject: &str, name: &str, left_s: i64) -> v1::Finding {
    let verdict = match Lasting::of(left_s) {
        Lasting::Long => "ok",
        Lasting::Soon => "warn",
        Lasting::Critical | Lasting::Ended => "fail",
    };
    let fix = if verdict == "ok" { String::new() } else { lasting::renewal(name) };
    let what = format!("its own certificate {}", lasting::ends(left_s));
    v1::Finding { subject: subject.to_owned(), verdict: verdict.to_owned(), what, fix, ..Default::default() }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pointsman_core::{ArtifactDigest, ReleaseId, Standing, Timestamp};

    use super::*;
    use crate::environment::Environment;
    use crate::planner::{self, Seen, Wanted, Wish};

    const SITE: &str = r#"
        schema = 1
        environment = "production"
        url = "https://www.example.org"
        agents = { lb1 = "h:1", blue = "h:3", green = "h:4" }
        lb = { agents = ["lb1"] }
        maintenance = { backend = "be_maint" }
        watch = { duration = "10m", after = "1h" }
        [slots]
        blue = { backend = "be_blue", hosts = ["blue"] }
        green = { backend = "be_green", hosts = ["green"] }
    "#;
    const NOW_S: i64 = 1_700_000_000;

    fn planned(wanted: Wanted, certificates: Ends) -> Result<Plan, Problem> {
        let environment = Environment::parse(Path::new("production.toml"), SITE).unwrap();
        let facts = v1::BalancerFacts { route: "be_blue:be_blue:0:7".to_owned(), ..Default::default() };
        let balancers = [("lb1".parse().unwrap(), facts)].into();
        let wish = Wish {
            wanted,
            release: ReleaseId::parse("r1").unwrap(),
            request_id: None,
            reason: None,
            by: "test".to_owned(),
            without: Vec::new(),
            now: Timestamp(1_700_000_000_000),
        };
        planner::plan(
            &environment,
            &Standing::default(),
            wish,
            &Seen { balancers, certificates, ..Seen::default() },
        )
    }

    fn deploy() -> Wanted {
        let artifact = ArtifactDigest::from_bytes([1; 32]);
        Wanted::Deploy { artifact, at_once: false, fix_forward: false, migrations: None }
    }

    fn last_for(own_s: i64, agents: &[(&str, i64)]) -> Ends {
        let agents = agents.iter().map(|(host, left_s)| (host.parse().unwrap(), NOW_S + left_s)).collect();
        Ends { own: Some(("coordinator1".to_owned(), NOW_S + own_s)), agents }
    }

    #[test]
    fn no_deploy_begins_that_a_certificate_might_not_outlast() {
        let plan = planned(deploy(), Ends::default()).unwrap();
        let longest_s = seconds(plan.longest_ms());
        assert!(longest_s > 70 * 60, "the watch, and the hour after it: {longest_s} s");
        let long = longest_s + 1;
        assert!(planned(deploy(), last_for(long, &[("lb1", long), ("green", long)])).is_ok());
        // The slot that serves is asked nothing.
        assert!(planned(deploy(), last_for(long, &[("blue", 1)])).is_ok());
        for (certificates, named) in [
            (last_for(longest_s, &[("lb1", long)]), "coordinator1"),
            (last_for(long, &[("lb1", longest_s)]), "lb1"),
            (last_for(600, &[("lb1", 1_000), ("green", -5)]), "green"),
        ] {
            let problem = planned(deploy(), certificates).unwrap_err();
            assert_eq!(problem.code, Code::CertificateEnds);
            assert!(problem.message.contains(&format!("`{named}`")), "{problem:?}");
            assert!(problem.hint.contains(&format!("`--renew {named}`")), "{problem:?}");
        }
    }

    #[test]
    fn the_page_goes_up_with_whatever_certificate_there_is() {
        assert!(planned(Wanted::MaintenanceOn(None), last_for(1, &[("lb1", 1)])).is_ok());
    }
}
