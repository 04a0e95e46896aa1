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
    Converged, Permission, check_loss, converge, foreign, remove,
};
use crate::provision::engine::selection::Selection;
use crate::provision::engine::session::{Purpose, Stack, read_one};
use crate::provision::resource::{Action, Reading, Resource};

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
    let stack = Stack::open(config, purpose, progress.clone()).await?;
    let outcome = stack
        .carry(on_stack(config, &stack, options, printer))
        .await;
    progress.finish();
    stack.close().await;
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

async fn on_stack(
    config: &Config,
    stack: &Stack,
    options: &ProvisionOptions,
    printer: &Printer,
) -> Result<PlanReport> {
    let prices = Prices::built_in();
    let chosen = options.selection.chosen(&stack.graph)?;
    let readings = stack.read(&chosen).await?;
    for (position, reading) in readings
        .iter()
        .enumerate()
        .filter(|(position, _)| chosen[*position])
    {
        if let Some(reading) = reading
            .as_ref()
            .filter(|reading| !matches!(reading.action, Action::Keep | Action::Foreign))
        {
            stack.graph.resources[position]
                .check(reading.action)
                .await?;
        }
    }
    let plan = report(stack, &prices, false, &chosen, &readings);
    if plan.changes() == 0 {
        stack.note_whole(&chosen).await?;
    }
    if options.plan || plan.changes() == 0 {
        return Ok(plan);
    }
    check_needs(stack, &chosen, &readings)?;
    let permission = Permission {
        may_lose_data: options.allow_recreate,
    };
    for ((resource, reading), chosen) in stack.graph.resources.iter().zip(&readings).zip(&chosen) {
        if let Some(reading) = reading.as_ref().filter(|_| *chosen) {
            if reading.action == Action::Foreign {
                return Err(foreign(resource.as_ref()));
            }
            check_loss(resource.as_ref(), reading, permission).await?;
        }
    }
    if config.target == Target::Aws {
        let question = format!(
            "change {} resources of account {}",
            plan.changes(),
            account_of(stack)
        );
        stack.progress.hide();
        if !options.yes {
            printer.note(plan.text());
        }
        confirm(options.yes, &question).await?;
        stack.progress.show();
    }
    if let Some(account) = &stack.account {
        // Of what goes, what holds records got this far only with `--allow-recreate`.
        let goes = |position: &usize| {
            readings[*position].as_ref().is_some_and(Reading::goes) && permission.may_lose_data
        };
        let gone = (0..chosen.len())
            .filter(|position| chosen[*position])
            .filter(goes);
        account
            .may_lose_data
            .borrow_mut()
            .extend(gone.map(|position| stack.graph.resources[position].key()));
    }
    let done = carry_out(stack, printer, &chosen, &readings, permission).await?;
    stack.note_whole(&chosen).await?;
    Ok(report(stack, &prices, true, &chosen, &done))
}

fn account_of(stack: &Stack) -> String {
    stack
        .account
        .as_ref()
        .map(|account| account.id.clone())
        .unwrap_or_default()
}

fn report(
    stack: &Stack,
    prices: &Prices,
    applied: bool,
    chosen: &[bool],
    readings: &[Option<Reading>],
) -> PlanReport {
    let steps = stack.graph.resources.iter().zip(readings).zip(chosen);
    let steps = steps
        .filter(|(_, chosen)| **chosen)
        .filter_map(|((resource, reading), _)| {
            reading
                .clone()
                .map(|reading| Step::new(resource.as_ref(), reading, prices))
        });
    // What nobody wants and is not there is nobody's business.
    let shown = steps.filter(|step| step.reading.exists || step.reading.action != Action::Keep);
    PlanReport::new(applied, shown.collect(), prices)
}

/// Whether all that the chosen resources need is there or chosen too.
fn check_needs(stack: &Stack, chosen: &[bool], readings: &[Option<Reading>]) -> Result<()> {
    for position in (0..chosen.len()).filter(|position| chosen[*position]) {
        let is_to_be_made = readings[position]
            .as_ref()
            .is_some_and(|reading| !matches!(reading.action, Action::Keep | Action::Delete));
        for need in stack
            .graph
            .needs(position)
            .iter()
            .filter(|need| !chosen[**need])
        {
            let missing = readings[*need]
                .as_ref()
                .is_none_or(|reading| !reading.exists);
            let needed = &stack.graph.resources[*need];
            if is_to_be_made && missing && needed.is_wanted() {
                let key = needed.key();
                return Err(Error::failed(format!(
                    "`{}` needs `{key}`, which is not there",
                    stack.graph.resources[position].key()
                ))
                .hint(format!(
                    "choose `{key}` too: add `--only {key}`, or take it out of `--skip`"
                )));
            }
        }
    }
    Ok(())
}

async fn carry_out(
    stack: &Stack,
    printer: &Printer,
    chosen: &[bool],
    readings: &[Option<Reading>],
    permission: Permission,
) -> Result<Vec<Option<Reading>>> {
    // Whoever needs something that changed is read again: addresses and ids may be others now.
    let changed = RefCell::new(remove_first(stack, printer, chosen, readings).await?);
    let changed = &changed;
    let visits = stack
        .graph
        .walk(Order::Needs, stack.at_once, |position, resource| {
            async move {
                let Some(planned) = readings[position].clone().filter(|_| chosen[position]) else {
                    return Ok(readings[position].clone());
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
                        .any(|other| stack.graph.needs(position).contains(other));
                let (began, why) = (Instant::now(), planned.reasons.clone());
                let planned = if is_stale {
                    read_one(resource).await?
                } else {
                    planned
                };
                let Converged {
                    action,
                    mut reading,
                } = stack
                    .or_stopped(converge(
                        stack.account.as_deref(),
                        resource,
                        planned,
                        permission,
                    ))
                    .await?;
                if action != Action::Keep {
                    let action = if is_fallen { Action::Recreate } else { action };
                    changed.borrow_mut().insert(position);
                    say_done(printer, stack, resource, &resource.name(), action, began);
                    reading.reasons = why;
                    reading.action = action;
                }
                Ok(Some(reading))
            }
            .boxed_local()
        })
        .await;
    stack.all_done(visits)
}

/// Removes what is not wanted any more or is to be made anew, what needs it before it.
/// Returns what went.
async fn remove_first(
    stack: &Stack,
    printer: &Printer,
    chosen: &[bool],
    readings: &[Option<Reading>],
) -> Result<BTreeSet<usize>> {
    let is_to_go = |position: usize| {
        chosen[position] && readings[position].as_ref().is_some_and(Reading::goes)
    };
    let positions: BTreeSet<usize> = (0..chosen.len())
        .filter(|position| is_to_go(*position))
        .collect();
    let goes = &positions;
    let visits = stack
        .graph
        .walk(Order::Dependents, stack.at_once, |position, resource| {
            async move {
                if goes.contains(&position) {
                    let (began, name) = (Instant::now(), stack.made_under(resource).await);
                    stack
                        .or_stopped(remove(stack.account.as_deref(), resource))
                        .await?;
                    say_done(printer, stack, resource, &name, Action::Delete, began);
                }
                Ok(())
            }
            .boxed_local()
        })
        .await;
    stack.all_done(visits)?;
    Ok(positions)
}

fn say_done(
    printer: &Printer,
    stack: &Stack,
    resource: &dyn Resource,
    name: &str,
    action: Action,
    began: Instant,
) {
    if stack.account.is_none() {
        return;
    }
    let done = action_text(action, true);
    let text = format!(
        "{done} {} {name} in {:.1} s",
        resource.kind(),
        began.elapsed().as_secs_f64()
    );
    stack.progress.aside(|| printer.note(text));
}
