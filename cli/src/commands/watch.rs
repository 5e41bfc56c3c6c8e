//! `traffic watch`: what visitors meet, until time is up or whoever watches leaves. Changes nothing.

use std::time::Duration;

use pointsman_chassis::config::Span;
use pointsman_core::{Code, EnvironmentName, Problem};
use pointsman_proto::v1;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Session;
use crate::exit::Exit;
use crate::out::Out;
use crate::render;

/// Without a tick for so long the coordinator is taken for gone: it sends one every few seconds, whatever agents do.
const SILENCE: Duration = Duration::from_secs(15);

/// Shows every second as it comes.
pub async fn watch_traffic(
    session: &Session,
    environment: &EnvironmentName,
    length: Option<Span>,
    out: &Out,
) -> Result<Exit, Problem> {
    let cannot =
        |error: std::io::Error| Problem::new(Code::UsageWrong, "cannot listen for signals").because(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let caller = session.caller(environment)?;
    let request = v1::WatchTrafficRequest { environment: environment.to_string() };
    let mut ticks = caller.answer(caller.client.clone().watch_traffic(request)).await?;
    let gone = || Problem::new(Code::CoordinatorUnreachable, "the coordinator ended the stream");
    let (mut until, mut drawn) = (None, 0usize);
    loop {
        let time_is_up = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            next = tokio::time::timeout(SILENCE, ticks.message()) => next,
            () = time_is_up => return Ok(Exit::Done),
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = terminate.recv() => return Ok(Exit::Done),
        };
        let next = next.map_err(|_| gone().cause(format!("nothing for {} s", SILENCE.as_secs())))?;
        let tick = next.map_err(|status| caller.explain(&status))?.ok_or_else(gone)?;
        if until.is_none() {
            until = length.map(|length| tokio::time::Instant::now() + Duration::from_millis(length.ms()));
        }
        show(&tick, &mut drawn, out)?;
        if out.unread() {
            return Ok(Exit::Done);
        }
    }
}

fn show(tick: &v1::TrafficTick, drawn: &mut usize, out: &Out) -> Result<(), Problem> {
    if out.json() {
        out.document_line(render::tick_json(tick)?);
    } else if out.redraws() {
        let block = render::tick_block(tick)?;
        // Up to where the last block began, and everything below is cleared.
        let up = if *drawn > 0 { format!("\u{1b}[{drawn}A\u{1b}[J") } else { String::new() };
        *drawn = block.lines().count();
        out.result(&format!("{up}{block}"));
    } else {
        out.result(&render::tick_lines(tick)?);
    }
    Ok(())
}
