//! What happens next: the earliest of a fixed number of alarms.

/// Alarms with a time each; an alarm that is not set is at infinity. A tournament tree: the winner of each pair goes up,
/// so that setting, moving and clearing an alarm cost the logarithm of their number, and the earliest is at the root.
/// Of alarms at the same time the one with the lowest number comes first, so that runs repeat.
pub(super) struct Agenda {
    leaves: usize,
    time: Vec<f64>,
    winner: Vec<u32>,
}

impl Agenda {
    /// That many alarms, none set.
    pub(super) fn new(alarms: usize) -> Self {
        let leaves = alarms.max(1).next_power_of_two();
        let mut winner = vec![0; 2 * leaves];
        for node in (1..2 * leaves).rev() {
            winner[node] = if node >= leaves { (node - leaves) as u32 } else { winner[2 * node] };
        }
        Self { leaves, time: vec![f64::INFINITY; leaves], winner }
    }

    /// Sets or moves an alarm.
    #[inline]
    pub(super) fn set(&mut self, alarm: usize, time: f64) {
        self.time[alarm] = time;
        // The parent of a node is the node divided by two.
        let mut node = (self.leaves + alarm) >> 1;
        while node >= 1 {
            let (left, right) = (self.winner[2 * node], self.winner[2 * node + 1]);
            self.winner[node] =
                if self.time[right as usize] < self.time[left as usize] { right } else { left };
            node >>= 1;
        }
    }

    /// Clears an alarm.
    #[inline]
    pub(super) fn clear(&mut self, alarm: usize) {
        if self.time[alarm].is_finite() {
            self.set(alarm, f64::INFINITY);
        }
    }

    /// The earliest alarm and its time; infinite when none is set.
    #[inline]
    pub(super) fn next(&self) -> (usize, f64) {
        let alarm = self.winner[1] as usize;
        (alarm, self.time[alarm])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_earliest_and_the_lowest_of_equals() {
        let mut agenda = Agenda::new(5);
        assert!(agenda.next().1.is_infinite());
        for (alarm, time) in [(4, 2.0), (1, 3.0), (3, 2.0), (0, 9.0)] {
            agenda.set(alarm, time);
        }
        let mut order = Vec::new();
        while agenda.next().1.is_finite() {
            order.push(agenda.next());
            agenda.clear(agenda.next().0);
        }
        assert_eq!(order, [(3, 2.0), (4, 2.0), (1, 3.0), (0, 9.0)]);
    }

    #[test]
    fn one_alarm_is_enough() {
        let mut agenda = Agenda::new(1);
        agenda.set(0, 1.0);
        assert_eq!(agenda.next(), (0, 1.0));
    }
}
