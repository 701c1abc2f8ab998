//! The one shape of a component, and the driver that runs it.
//!
//! A component keeps one part of the world as configured. Each pass observes that part afresh, plans without any I/O,
//! and applies the plan. `bastionctl plan` is the same pass, stopped before [`Component::apply`]; `bastionctl down`
//! calls [`Component::down`] of each component in the opposite order.

use std::fmt::Debug;

use futures::future::{BoxFuture, FutureExt as _};

use crate::inputs::Inputs;
use crate::outcome::{ComponentError, ComponentName, Outcome, Problem, State};

/// What was done or would be done, a line each, and what is wrong.
pub(crate) type Steps = (Vec<String>, Vec<Problem>);

/// A part of the world that is kept as configured.
pub trait Component: Send {
    /// Its name in the status.
    const NAME: ComponentName;
    /// What it finds in the world.
    type Observed: Send;
    /// What it is going to do about it.
    type Plan: Plan;
    /// Why the world cannot be observed.
    type Error: ComponentError + Send;

    /// Reads its part of the world. Changes nothing in it; but the kernel may load a module that is asked about.
    fn observe(&mut self, inputs: &Inputs<'_>) -> impl Future<Output = Result<Self::Observed, Self::Error>> + Send;

    /// Compares what is wanted with what was observed. Pure: no I/O, no clock but `inputs.now`.
    fn plan(&self, inputs: &Inputs<'_>, observed: &Self::Observed) -> Self::Plan;

    /// Carries the plan out: tries every step and keeps each error.
    fn apply(
        &mut self,
        inputs: &Inputs<'_>,
        observed: Self::Observed,
        plan: Self::Plan,
    ) -> impl Future<Output = Outcome> + Send;

    /// The outcome of a pass that could not observe its part of the world.
    fn failed(&mut self, inputs: &Inputs<'_>, error: &Self::Error) -> Outcome {
        let _ = inputs;
        Outcome::failed(error)
    }

    /// Removes what the component made, for `bastionctl down`.
    fn down(&mut self, inputs: &Inputs<'_>) -> impl Future<Output = Steps> + Send;

    /// What [`Component::hold_back`] would do; a problem if the component cannot observe its part of the world.
    fn preview_held_back(&mut self, inputs: &Inputs<'_>) -> impl Future<Output = Result<Steps, Problem>> + Send {
        let _ = inputs;
        async { Ok((Vec::new(), Vec::new())) }
    }

    /// Takes the place of a pass while a component that this one waits for does not stand.
    fn hold_back(&mut self, inputs: &Inputs<'_>, waits_for: ComponentName) -> impl Future<Output = Outcome> + Send {
        let _ = inputs;
        async move { Outcome::unchanged(State::HeldBack, format!("waits for {waits_for}")) }
    }
}

/// What a component is going to do: a value that can be compared, printed and counted.
pub trait Plan: Debug + PartialEq + Send {
    /// Each step in an operator's words, in the order in which they are carried out. Empty: the world is as wanted.
    fn steps(&self) -> Vec<String>;

    /// What keeps the component from its aim and is not its to change.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// A component without its types, so that a pass can be a list.
pub(crate) trait Reconcile: Send {
    /// Its name in the status.
    fn name(&self) -> ComponentName;
    /// One pass: observe, plan, apply.
    fn reconcile<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Outcome>;
    /// What the next pass would do; a problem if the component cannot observe its part of the world.
    fn preview<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Result<Steps, Problem>>;
    /// See [`Component::preview_held_back`].
    fn preview_held_back<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Result<Steps, Problem>>;
    /// See [`Component::hold_back`].
    fn hold_back<'a>(&'a mut self, inputs: &'a Inputs<'a>, waits_for: ComponentName) -> BoxFuture<'a, Outcome>;
    /// See [`Component::down`].
    fn down<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Steps>;
}

impl<C: Component> Reconcile for C {
    fn name(&self) -> ComponentName {
        C::NAME
    }

    fn reconcile<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Outcome> {
        reconcile(self, inputs).boxed()
    }

    fn preview<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Result<Steps, Problem>> {
        preview(self, inputs).boxed()
    }

    fn preview_held_back<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Result<Steps, Problem>> {
        Component::preview_held_back(self, inputs).boxed()
    }

    fn hold_back<'a>(&'a mut self, inputs: &'a Inputs<'a>, waits_for: ComponentName) -> BoxFuture<'a, Outcome> {
        Component::hold_back(self, inputs, waits_for).boxed()
    }

    fn down<'a>(&'a mut self, inputs: &'a Inputs<'a>) -> BoxFuture<'a, Steps> {
        Component::down(self, inputs).boxed()
    }
}

/// One pass of one component.
pub async fn reconcile<C: Component>(component: &mut C, inputs: &Inputs<'_>) -> Outcome {
    match component.observe(inputs).await {
        Ok(observed) => {
            let plan = component.plan(inputs, &observed);
            component.apply(inputs, observed, plan).await
        }
        Err(error) => component.failed(inputs, &error),
    }
}

/// What [`reconcile`] would do, and what is in its way; a problem if the component cannot observe its part of the
/// world.
pub async fn preview<C: Component>(component: &mut C, inputs: &Inputs<'_>) -> Result<Steps, Problem> {
    let observed = component.observe(inputs).await.map_err(|error| Problem::from_error(&error))?;
    let plan = component.plan(inputs, &observed);
    Ok((plan.steps(), plan.problems()))
}
