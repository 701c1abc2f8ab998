//! One thing that is measured, for us and for those we are compared with.

/// The subject that is ours.
pub(crate) const OURS: &str = "bastiond";

/// A case with everything that was measured for it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// `part/what`.
    pub(crate) name: &'static str,
    /// In a person's words.
    pub(crate) title: &'static str,
    /// Of the values.
    pub(crate) unit: &'static str,
    /// Which direction is good.
    pub(crate) better: Better,
    /// In the order in which they were measured in each round. One is [`OURS`].
    pub(crate) subjects: Vec<Subject>,
    /// What we promise.
    pub(crate) promise: Option<Promise>,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// Who was measured, and what came out, a value a round.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// A bar that our median has to take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Promise {
    Below(f64),
    AtMost(f64),
    /// Not below that subject, give or take what the machine itself wavers.
    NotBelow(&'static str),
}

/// The same rules measured twice differ by up to as much on a shared machine.
pub(crate) const TOLERANCE: f64 = 0.03;

impl Case {
    /// A case about nobody but us.
    pub(crate) fn alone(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        promise: Option<Promise>,
        values: Vec<f64>,
    ) -> Self {
        let subjects = vec![Subject { name: OURS, values }];
        Self { name, title, unit, better: Better::Lower, subjects, promise }
    }

    pub(crate) fn ours(&self) -> &Subject {
        self.subject(OURS)
    }

    pub(crate) fn subject(&self, name: &str) -> &Subject {
        self.subjects.iter().find(|subject| subject.name == name).expect("every case has its subjects")
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.iter().filter(|subject| subject.name != OURS)
    }

    /// Ours over that subject's. Both were measured within seconds in each round, so the median of the rounds' ratios
    /// wavers less than the ratio of the medians.
    pub(crate) fn ratio_to(&self, other: &Subject) -> f64 {
        median(self.ours().values.iter().zip(&other.values).map(|(ours, theirs)| ours / theirs))
    }

    /// Whether the promise is kept, if there is one.
    pub(crate) fn is_kept(&self) -> Option<bool> {
        let median = self.ours().median();
        self.promise.map(|promise| match promise {
            Promise::Below(bar) => median < bar,
            Promise::AtMost(bar) => median <= bar,
            Promise::NotBelow(subject) => self.ratio_to(self.subject(subject)) >= 1.0 - TOLERANCE,
        })
    }
}

impl Subject {
    pub(crate) fn median(&self) -> f64 {
        median(self.values.iter().copied())
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Not a number if there are no values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
