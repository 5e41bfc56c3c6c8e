//! The load balancer's agent under visitors at a given rate: whether a switch loses, tears or leaves behind a request,
//! how long it takes beside what it consists of, how far apart two load balancers are, and how true shares are.

mod beside;
mod crowd;
mod effect;
mod sockets;
mod steer;

use anyhow::Result;
use kit::{Site, ids, sides, sigmas};
use pointsman_core::Route;
use serde_json::{Value, json};

use crate::figures::{Samples, rounded};
use crate::{access_lines, host};
use crowd::{Counted, Crowd, Pages};
use effect::Effects;
use sockets::Floor;
use steer::Steered;

/// Requests between two switches: a thousand switches have a million.
const REQUESTS_EACH: u64 = 1_000;
/// How often HAProxy is reloaded, in switches.
const RELOAD_EVERY: usize = 10;
/// Switches that are made before anything is measured: programs and files are in memory from then on.
const WARM_UP: usize = 4;
/// The part of the switches that two load balancers make together, and that the effect is measured of, and how many at
/// least: p99 of fewer would be the slowest.
const PART: usize = 3;
const LEAST: usize = 100;
/// Requests a second on each of two load balancers, as a part of the whole rate.
const RATE_PART: u32 = 5;
/// The shares of the canary, and the visitors that are counted at each.
const SHARES: [u8; 5] = [1, 5, 10, 25, 50];
const VISITORS: usize = 10_000;
/// What they ask for.
const PAGE: &str = "/index.html";

const METHOD: &str = "Real HAProxy, nginx and lb-agents on one machine, release profile. The lb-agents get their orders \
over gRPC and mutual TLS from this program, as from their coordinator, which has ended. \
Load: 64 clients in raw HTTP/1.1 at BENCH_RATE requests a second; half reuse a connection and do not look whether it was \
closed before they write, half open one per request. 1000 requests between two switches; before every tenth HAProxy is \
reloaded and nobody waits for the new worker. \
lost = no whole answer of status 200; torn = mark (X-Pointsman) and page are of two slots; stale = began after the answer \
to the order was here and was answered by an older route. requests, lost, torn and stale are of both phases under load. \
switch_* = order received to durable and verified, agent-side: Done.answered_at_us - arrived_at_us, nothing prepared \
before. Switches that a reload falls into wait for HAProxy's master and are in in_reload_*; refused_again counts orders \
that changed nothing and were sent again, because servers are not checked yet after a reload. \
floor_* = what such a switch consists of, by hand, in the same order and as much of it at once, under the same load and \
beside the same files, once between every two switches: receipt begun with fence (SQLite, WAL, synchronous=FULL), show \
map + show backend + show stat, show info, map written and flushed, rename, set map, then at once show proc at the master, \
show info, show map, three new connections and the flush of the folder, then show info, receipt done. \
effect_ratio = p50 of effect / p50 of bare. effect: a relay between agent and HAProxy notes when the agent's set map \
passes; 4 clients that never pause see the route change; counted is until the next request that was seen to begin after \
the last one on the old route, so what is not known counts as time; effect_certain is until that last one began. bare: set map sent to answer read, by hand, right after each. \
skew_* = difference of effect_at_us of two agents, prepared together and performed together, under a fifth of the rate on each. \
seed_switch = a shell script with two socat calls, set server ready and drain, timed as a whole; ansible_switch = a \
playbook with two tasks of community.general.haproxy, the same. \
canary_*: 10000 fixed ids as HAProxy makes them in cookie pm_id, each twice at each of 1, 5, 10, 25, 50 %; worst_sigma = \
largest distance from the share in standard deviations; moved_back = ids on the canary that are not when the share rises. \
log_*, p99_relative_error: the verb access-lines. p99 is the nearest rank.";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Switches.
    pub switches: usize,
    /// Requests a second.
    pub rate: u32,
}

/// What the switches of one load balancer under load took.
#[derive(Default)]
struct Switches {
    calm: Samples,
    in_reload: Samples,
    floor: Samples,
    reloads: usize,
    refused: u32,
}

async fn switches(site: &mut Site, lb1: &mut Steered, crowd: &Crowd, count: usize) -> Result<Switches> {
    let mut floor = Floor::new(site)?;
    let mut found = Switches::default();
    for number in 0..count.saturating_add(WARM_UP) {
        crowd.more(REQUESTS_EACH / 2).await?;
        let by_hand = floor.once(&lb1.route.to_string()).await?;
        crowd.more(REQUESTS_EACH / 2).await?;
        let reloads = number % RELOAD_EVERY == RELOAD_EVERY - 1;
        if reloads {
            site.haproxy.reload().await?;
            found.reloads += 1;
        }
        let wanted = lb1.flipped();
        let moved = lb1.set(&wanted).await?;
        crowd.reported(wanted.epoch.0);
        found.refused += moved.refused;
        if number < WARM_UP {
            continue;
        }
        found.floor.push(by_hand);
        if reloads { found.in_reload.push(moved.took) } else { found.calm.push(moved.took) }
    }
    crowd.more(REQUESTS_EACH / 2).await?;
    Ok(found)
}

/// Both load balancers, prepared and performed together.
async fn skews(pair: (&mut Steered, &mut Steered), crowds: [&Crowd; 2], count: usize) -> Result<Samples> {
    let (lb1, lb2) = pair;
    let mut skews = Samples::default();
    for _ in 0..count {
        for crowd in crowds {
            crowd.more(REQUESTS_EACH / u64::from(RATE_PART) / 10).await?;
        }
        let wanted = lb1.flipped();
        let (first, second) = tokio::try_join!(lb1.prepare(&wanted), lb2.prepare(&wanted))?;
        let (first, second) = tokio::try_join!(lb1.perform(first, &wanted), lb2.perform(second, &wanted))?;
        for crowd in crowds {
            crowd.reported(wanted.epoch.0);
        }
        skews.push(std::time::Duration::from_micros(first.effect_at_us.abs_diff(second.effect_at_us)));
    }
    Ok(skews)
}

/// How true shares are.
#[derive(Default)]
struct Shares {
    worst_sigma: f64,
    changed_side: usize,
    moved_back: usize,
    shares: Vec<f64>,
}

async fn shares(site: &Site, lb1: &mut Steered) -> Result<Shares> {
    let ids = ids(VISITORS);
    let mut found = Shares::default();
    let mut before = vec![false; ids.len()];
    // As the splits of one release have them: in another block of epochs it is other visitors' turn.
    let first = lb1.route.epoch.after(1).begins_block();
    for (moves, percent) in (0..).zip(SHARES) {
        lb1.set(&Route { percent, epoch: first.after(moves), ..lb1.route.clone() }).await?;
        let met = sides(site.frontend(), PAGE, &ids).await?;
        let again = sides(site.frontend(), PAGE, &ids).await?;
        found.worst_sigma = found.worst_sigma.max(sigmas(&met, percent));
        found.changed_side += met.iter().zip(&again).filter(|(one, other)| one != other).count();
        let now: Vec<bool> = met.iter().map(|met| met.canary).collect();
        found.moved_back += before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
        found.shares.push(now.iter().filter(|on| **on).count() as f64 * 100.0 / ids.len() as f64);
        before = now;
    }
    Ok(found)
}

/// Runs the benchmark.
pub async fn measure(size: Size) -> Result<Value> {
    let machine = host::machine()?;
    eprintln!("== start a site with two load balancers, release v1 and v2");
    let mut site = Site::builder().balancers(2).watch("300ms").start().await?;
    site.released("v1").await?;
    site.released("v2").await?;
    site.kill_coordinator()?;
    let route = site.haproxy.route().await?;
    let mut lb1 = Steered::take(&site, "lb1", &route).await?;
    let page = |version: &str| format!("<title>{version}</title>\n");
    let pages = Pages { from: lb1.route.epoch.0, of: [page("v2"), page("v1")] };

    eprintln!("== {} switches at {} requests per second", size.switches, size.rate);
    let crowd = Crowd::start(site.frontend(), size.rate, &pages)?;
    let switches = switches(&mut site, &mut lb1, &crowd, size.switches).await?;
    let counted = crowd.stop()?;
    eprintln!("   {counted:?}");

    let part = (size.switches / PART).max(LEAST);
    eprintln!("== {part} switches of two load balancers");
    let route = site.second_haproxy()?.route().await?;
    let mut lb2 = Steered::take(&site, "lb2", &route).await?;
    lb2.set(&lb1.route.clone()).await?;
    let crowds: Vec<Crowd> = site
        .frontends()
        .into_iter()
        .map(|frontend| Crowd::start(frontend, size.rate / RATE_PART, &pages))
        .collect::<Result<_>>()?;
    let skew = match crowds.as_slice() {
        [first, second] => skews((&mut lb1, &mut lb2), [first, second], part).await?,
        _ => anyhow::bail!("the site has other than two load balancers"),
    };
    let together = crowds
        .into_iter()
        .try_fold(Counted::default(), |sum, crowd| Ok::<_, anyhow::Error>(sum.plus(crowd.stop()?)))?;

    eprintln!("   {together:?}");
    eprintln!("== {part} switches behind a relay");
    drop(lb2);
    let effects = effect::measure(&mut site, part).await?;
    eprintln!("== {} shares of {VISITORS} visitors", SHARES.len());
    let shares = shares(&site, &mut lb1).await?;
    eprintln!("== other ways to switch");
    let seed = beside::script(&site)?;
    let ansible = beside::ansible(&site)?;
    eprintln!("== access lines");
    let lines = access_lines::measure().await?;

    let mut found = document(&size, &switches, [counted, together], (&skew, &effects));
    let rest = json!({
        "seed_switch_p50_ms": rounded(seed.p50()),
        "ansible_switch_p50_ms": ansible.map(|samples| rounded(samples.p50())),
        "canary_worst_sigma": rounded(shares.worst_sigma), "canary_moved_back": shares.moved_back,
        "canary_changed_side": shares.changed_side, "canary_shares_percent": shares.shares,
        "method": METHOD, "machine": machine,
    });
    if let (Some(found), Some(rest), Some(lines)) =
        (found.as_object_mut(), rest.as_object(), lines.as_object())
    {
        found.extend(rest.clone());
        found.extend(lines.clone());
    }
    Ok(found)
}

fn document(
    size: &Size,
    switches: &Switches,
    [counted, together]: [Counted; 2],
    (skew, effects): (&Samples, &Effects),
) -> Value {
    let all = counted.plus(together);
    let Switches { calm, in_reload, floor, reloads, refused } = switches;
    json!({
        "requests": all.requests, "requests_per_second": (counted.requests as f64 / counted.seconds).round(),
        "rate_asked_for": size.rate,
        "switches": size.switches, "reloads": reloads, "refused_again": refused,
        "lost": all.lost, "torn": all.torn, "stale": all.stale,
        "effect_ratio": rounded(effects.effect.p50() / effects.bare.p50()),
        "effect_certain_p50_ms": rounded(effects.certain.p50()),
        "effect_p50_ms": rounded(effects.effect.p50()), "effect_p99_ms": rounded(effects.effect.p99()),
        "bare_set_map_p50_ms": rounded(effects.bare.p50()), "bare_set_map_p99_ms": rounded(effects.bare.p99()),
        "switch_p50_ms": rounded(calm.p50()), "switch_p99_ms": rounded(calm.p99()),
        "floor_p50_ms": rounded(floor.p50()), "floor_p99_ms": rounded(floor.p99()),
        "ratio_p50": rounded(calm.p50() / floor.p50()), "ratio_p99": rounded(calm.p99() / floor.p99()),
        "in_reload_p50_ms": rounded(in_reload.p50()), "in_reload_p99_ms": rounded(in_reload.p99()),
        "skew_p50_ms": rounded(skew.p50()), "skew_p99_ms": rounded(skew.p99()),
    })
}
