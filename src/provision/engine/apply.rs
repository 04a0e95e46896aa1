//! `pinpipe provision`: plans, asks, and carries the plan out.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use futures::FutureExt;

use crate::base::config::schema::{ApiAuth, Config, Target};
use crate::base::error::{Error, Result};
use crate::base::output::{Printer, Report, confirm};
use crate::provision::aws::apigateway::verify::verify_api;
use crate::provision::aws::keys;
use crate::provision::cost::Prices;
use crate::provision::engine::graph::Order;
use crate::provision::engine::plan::{PlanReport, Step, action_text};
use crate::provision::engine::reconcile::{
    Converged, DataLossPolicy, converge, ensure_data_loss_allowed, foreign, remove,
};
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Purpose, Session, read_one};
use crate::provision::resource::{Action, Observation, Resource};

/// What `provision` changes, and what it may do without asking.
#[derive(Debug, Clone, Default)]
pub struct ProvisionOptions {
    /// Show what would be done and what it costs, change nothing
    pub plan: bool,
    /// Do not ask
    pub yes: bool,
    /// Make anew, or remove where it is not asked for any more, also what loses records by it
    pub allow_recreate: bool,
    pub selection: Selection,
}

/// Makes everything that is missing and mends what differs; repeating it changes nothing.
///
/// # Errors
/// A resource that cannot be read or made; what was made before stays, and the next run
/// goes on from there.
pub async fn apply(config: &Config, printer: &Printer) -> Result<PlanReport> {
    provision(
        config,
        &ProvisionOptions {
            yes: true,
            ..ProvisionOptions::default()
        },
        printer,
    )
    .await
}

/// `pinpipe provision`.
///
/// # Errors
/// As [`apply`]; nobody confirmed.
pub async fn provision(
    config: &Config,
    options: &ProvisionOptions,
    printer: &Printer,
) -> Result<PlanReport> {
    let purpose = if options.plan {
        Purpose::Look
    } else {
        Purpose::Change
    };
    let progress = printer.activity("provisioning");
    let session = Session::open(config, purpose, progress.clone()).await?;
    let outcome = session
        .run_until_cancelled(plan_and_apply(config, &session, options, printer))
        .await;
    progress.finish();
    session.close().await;
    if let Ok(report) = &outcome
        && config.target == Target::Aws
        && report.applied
        && report
            .steps
            .iter()
            .any(|step| step.key == keys::API || step.key == keys::USAGE_PLAN)
    {
        if config.api.auth == ApiAuth::None {
            printer.warn("anybody may post through the API: `api.auth` is \"none\"");
        }
        match verify_api(config).await {
            Ok(text) => printer.note(text),
            Err(error) => printer.warn(format!(
                "{error}\nhint: {}",
                error
                    .hint_text()
                    .unwrap_or("`pinpipe api status` asks it again")
            )),
        }
    }
    outcome
}

async fn plan_and_apply(
    config: &Config,
    session: &Session,
    options: &ProvisionOptions,
    printer: &Printer,
) -> Result<PlanReport> {
    let prices = Prices::built_in();
    let chosen = options.selection.chosen(&session.graph)?;
    let observations = session.read(&chosen).await?;
    for (position, observation) in observations
        .iter()
        .enumerate()
        .filter(|(position, _)| chosen[*position])
    {
        if let Some(observation) = observation
            .as_ref()
            .filter(|observation| !matches!(observation.action, Action::NoOp | Action::Unmanaged))
        {
            session.graph.resources[position]
                .check(observation.action)
                .await?;
        }
    }
    let plan = report(session, &prices, false, &chosen, &observations);
    if plan.changes() == 0 {
        session.mark_complete_if_done(&chosen).await?;
    }
    if options.plan || plan.changes() == 0 {
        return Ok(plan);
    }
    check_dependencies(session, &chosen, &observations)?;
    let data_loss = DataLossPolicy {
        may_lose_data: options.allow_recreate,
    };
    for ((resource, observation), chosen) in session
        .graph
        .resources
        .iter()
        .zip(&observations)
        .zip(&chosen)
    {
        if let Some(observation) = observation.as_ref().filter(|_| *chosen) {
            if observation.action == Action::Unmanaged {
                return Err(foreign(resource.as_ref()));
            }
            ensure_data_loss_allowed(resource.as_ref(), observation, data_loss).await?;
        }
    }
    if config.target == Target::Aws {
        let question = format!(
            "change {} resources of account {}",
            plan.changes(),
            account_of(session)
        );
        session.progress.hide();
        if !options.yes {
            printer.note(plan.text());
        }
        confirm(options.yes, &question).await?;
        session.progress.show();
    }
    if let Some(account) = &session.account {
        // Of what goes, what holds records got this far only with `--allow-recreate`.
        let goes = |position: &usize| {
            observations[*position]
                .as_ref()
                .is_some_and(Observation::is_removal)
                && data_loss.may_lose_data
        };
        let gone = (0..chosen.len())
            .filter(|position| chosen[*position])
            .filter(goes);
        account
            .may_lose_data
            .borrow_mut()
            .extend(gone.map(|position| session.graph.resources[position].key()));
    }
    let done = apply_plan(session, printer, &chosen, &observations, data_loss).await?;
    session.mark_complete_if_done(&chosen).await?;
    Ok(report(session, &prices, true, &chosen, &done))
}

fn account_of(session: &Session) -> String {
    session
        .account
        .as_ref()
        .map(|account| account.id.clone())
        .unwrap_or_default()
}

fn report(
    session: &Session,
    prices: &Prices,
    applied: bool,
    chosen: &[bool],
    observations: &[Option<Observation>],
) -> PlanReport {
    let steps = session.graph.resources.iter().zip(observations).zip(chosen);
    let steps = steps
        .filter(|(_, chosen)| **chosen)
        .filter_map(|((resource, observation), _)| {
            observation
                .clone()
                .map(|observation| Step::new(resource.as_ref(), observation, prices))
        });
    // What nobody wants and is not there is nobody's business.
    let shown =
        steps.filter(|step| step.observation.exists || step.observation.action != Action::NoOp);
    PlanReport::new(applied, shown.collect(), prices)
}

/// Whether all that the chosen resources need is there or chosen too.
fn check_dependencies(
    session: &Session,
    chosen: &[bool],
    observations: &[Option<Observation>],
) -> Result<()> {
    for position in (0..chosen.len()).filter(|position| chosen[*position]) {
        let is_to_be_made = observations[position].as_ref().is_some_and(|observation| {
            !matches!(observation.action, Action::NoOp | Action::Delete)
        });
        for need in session
            .graph
            .depends_on(position)
            .iter()
            .filter(|need| !chosen[**need])
        {
            let missing = observations[*need]
                .as_ref()
                .is_none_or(|observation| !observation.exists);
            let needed = &session.graph.resources[*need];
            if is_to_be_made && missing && needed.is_enabled() {
                let key = needed.key();
                return Err(Error::failed(format!(
                    "`{}` needs `{key}`, which is not there",
                    session.graph.resources[position].key()
                ))
                .hint(format!(
                    "choose `{key}` too: add `--only {key}`, or take it out of `--skip`"
                )));
            }
        }
    }
    Ok(())
}

async fn apply_plan(
    session: &Session,
    printer: &Printer,
    chosen: &[bool],
    observations: &[Option<Observation>],
    data_loss: DataLossPolicy,
) -> Result<Vec<Option<Observation>>> {
    // Whoever needs something that changed is read again: addresses and ids may be others now.
    let changed = RefCell::new(delete_first(session, printer, chosen, observations).await?);
    let changed = &changed;
    let visits = session
        .graph
        .walk(Order::Needs, session.at_once, |position, resource| {
            async move {
                let Some(planned) = observations[position].clone().filter(|_| chosen[position])
                else {
                    return Ok(observations[position].clone());
                };
                if planned.action == Action::Delete {
                    // It went before all else.
                    return Ok(Some(planned));
                }
                let is_fallen = planned.action == Action::Recreate;
                let is_stale = is_fallen
                    || changed
                        .borrow()
                        .iter()
                        .any(|other| session.graph.depends_on(position).contains(other));
                let (began, why) = (Instant::now(), planned.reasons.clone());
                let planned = if is_stale {
                    read_one(resource).await?
                } else {
                    planned
                };
                let Converged {
                    action,
                    mut observation,
                } = session
                    .run_until_shutdown(converge(
                        session.account.as_deref(),
                        resource,
                        planned,
                        data_loss,
                    ))
                    .await?;
                if action != Action::NoOp {
                    let action = if is_fallen { Action::Recreate } else { action };
                    changed.borrow_mut().insert(position);
                    say_done(printer, session, resource, &resource.name(), action, began);
                    observation.reasons = why;
                    observation.action = action;
                }
                Ok(Some(observation))
            }
            .boxed_local()
        })
        .await;
    session.collect_results(visits)
}

/// Removes what is not wanted any more or is to be made anew, what needs it before it.
/// Returns what went.
async fn delete_first(
    session: &Session,
    printer: &Printer,
    chosen: &[bool],
    observations: &[Option<Observation>],
) -> Result<BTreeSet<usize>> {
    let is_to_go = |position: usize| {
        chosen[position]
            && observations[position]
                .as_ref()
                .is_some_and(Observation::is_removal)
    };
    let positions: BTreeSet<usize> = (0..chosen.len())
        .filter(|position| is_to_go(*position))
        .collect();
    let goes = &positions;
    let visits = session
        .graph
        .walk(Order::Dependents, session.at_once, |position, resource| {
            async move {
                if goes.contains(&position) {
                    let (began, name) = (Instant::now(), session.recorded_name(resource).await);
                    session
                        .run_until_shutdown(remove(session.account.as_deref(), resource))
                        .await?;
                    say_done(printer, session, resource, &name, Action::Delete, began);
                }
                Ok(())
            }
            .boxed_local()
        })
        .await;
    session.collect_results(visits)?;
    Ok(positions)
}

fn say_done(
    printer: &Printer,
    session: &Session,
    resource: &dyn Resource,
    name: &str,
    action: Action,
    began: Instant,
) {
    if session.account.is_none() {
        return;
    }
    let done = action_text(action, true);
    let text = format!(
        "{done} {} {name} in {:.1} s",
        resource.kind(),
        began.elapsed().as_secs_f64()
    );
    session.progress.aside(|| printer.note(text));
}
