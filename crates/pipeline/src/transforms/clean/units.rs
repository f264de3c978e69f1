//! Units of measurement: names, dimensions, and their definition by a base unit.
//!
//! Factors are exact where the unit is defined so: the international yard and pound (1959), the calorie of
//! thermochemistry (4.184 J), the British thermal unit of the International Table, the nautical mile (1929), the metric
//! horsepower (75 kgf·m/s), standard gravity (9.80665 m/s², CGPM 1901). See NIST SP 811, appendix B.

use twinlake_contracts::{Error, Result, suggest};

/// A unit: `base = (value + add) · factor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    pub name: &'static str,
    pub dimension: &'static str,
    add: f64,
    factor: f64,
    /// How column names end that have this unit.
    pub suffix: &'static str,
}

const fn unit(dimension: &'static str, name: &'static str, factor: f64, suffix: &'static str) -> Unit {
    Unit { name, dimension, add: 0.0, factor, suffix }
}

const GALLON: f64 = 0.003_785_411_784;
const POUND: f64 = 0.453_592_37;

/// All units, by dimension.
pub(super) const UNITS: &[Unit] = &[
    unit("temperature", "degC", 1.0, "c"),
    Unit { name: "degF", dimension: "temperature", add: -32.0, factor: 5.0 / 9.0, suffix: "f" },
    Unit { name: "K", dimension: "temperature", add: -273.15, factor: 1.0, suffix: "k" },
    unit("length", "m", 1.0, "m"),
    unit("length", "mm", 0.001, "mm"),
    unit("length", "cm", 0.01, "cm"),
    unit("length", "km", 1_000.0, "km"),
    unit("length", "in", 0.0254, "in"),
    unit("length", "ft", 0.3048, "ft"),
    unit("length", "yd", 0.9144, "yd"),
    unit("length", "mi", 1_609.344, "mi"),
    unit("length", "nmi", 1_852.0, "nmi"),
    unit("area", "m2", 1.0, "m2"),
    unit("area", "cm2", 0.000_1, "cm2"),
    unit("area", "ha", 10_000.0, "ha"),
    unit("area", "km2", 1e6, "km2"),
    unit("area", "ft2", 0.092_903_04, "ft2"),
    unit("volume", "m3", 1.0, "m3"),
    unit("volume", "l", 0.001, "l"),
    unit("volume", "ml", 1e-6, "ml"),
    unit("volume", "ft3", 0.028_316_846_592, "ft3"),
    unit("volume", "gal", GALLON, "gal"),
    unit("mass", "kg", 1.0, "kg"),
    unit("mass", "g", 0.001, "g"),
    unit("mass", "mg", 1e-6, "mg"),
    unit("mass", "t", 1_000.0, "t"),
    unit("mass", "lb", POUND, "lb"),
    unit("mass", "oz", POUND / 16.0, "oz"),
    unit("time", "s", 1.0, "s"),
    unit("time", "ms", 0.001, "ms"),
    unit("time", "min", 60.0, "min"),
    unit("time", "h", 3_600.0, "h"),
    unit("time", "d", 86_400.0, "d"),
    unit("speed", "m/s", 1.0, "mps"),
    unit("speed", "km/h", 1.0 / 3.6, "kmh"),
    unit("speed", "mph", 0.447_04, "mph"),
    unit("speed", "kn", 1_852.0 / 3_600.0, "kn"),
    unit("speed", "ft/s", 0.3048, "ftps"),
    unit("acceleration", "m/s2", 1.0, "mps2"),
    unit("acceleration", "g0", 9.806_65, "g0"),
    unit("pressure", "Pa", 1.0, "pa"),
    unit("pressure", "hPa", 100.0, "hpa"),
    unit("pressure", "kPa", 1_000.0, "kpa"),
    unit("pressure", "MPa", 1e6, "mpa"),
    unit("pressure", "mbar", 100.0, "mbar"),
    unit("pressure", "bar", 1e5, "bar"),
    unit("pressure", "atm", 101_325.0, "atm"),
    unit("pressure", "mmHg", 133.322_387_415, "mmhg"),
    unit("pressure", "psi", 6_894.757_293_168_361, "psi"),
    unit("power", "W", 1.0, "w"),
    unit("power", "kW", 1_000.0, "kw"),
    unit("power", "MW", 1e6, "mw"),
    unit("power", "GW", 1e9, "gw"),
    unit("power", "hp", 735.498_75, "hp"),
    unit("energy", "J", 1.0, "j"),
    unit("energy", "kJ", 1_000.0, "kj"),
    unit("energy", "MJ", 1e6, "mj"),
    unit("energy", "GJ", 1e9, "gj"),
    unit("energy", "Wh", 3_600.0, "wh"),
    unit("energy", "kWh", 3.6e6, "kwh"),
    unit("energy", "MWh", 3.6e9, "mwh"),
    unit("energy", "cal", 4.184, "cal"),
    unit("energy", "kcal", 4_184.0, "kcal"),
    unit("energy", "Btu", 1_055.055_852_62, "btu"),
    unit("volume flow", "m3/s", 1.0, "m3s"),
    unit("volume flow", "m3/h", 1.0 / 3_600.0, "m3h"),
    unit("volume flow", "l/s", 0.001, "lps"),
    unit("volume flow", "l/min", 0.001 / 60.0, "lpm"),
    unit("volume flow", "l/h", 0.001 / 3_600.0, "lph"),
    unit("volume flow", "gal/min", GALLON / 60.0, "gpm"),
    unit("mass flow", "kg/s", 1.0, "kgs"),
    unit("mass flow", "kg/h", 1.0 / 3_600.0, "kgh"),
    unit("mass flow", "t/h", 1_000.0 / 3_600.0, "th"),
    unit("concentration", "kg/m3", 1.0, "kgm3"),
    unit("concentration", "g/m3", 1e-3, "gm3"),
    unit("concentration", "mg/m3", 1e-6, "mgm3"),
    unit("concentration", "ug/m3", 1e-9, "ugm3"),
    unit("concentration", "mg/l", 1e-3, "mgl"),
    unit("irradiance", "W/m2", 1.0, "wm2"),
    unit("irradiance", "kW/m2", 1_000.0, "kwm2"),
    unit("frequency", "Hz", 1.0, "hz"),
    unit("frequency", "kHz", 1_000.0, "khz"),
    unit("frequency", "rpm", 1.0 / 60.0, "rpm"),
    unit("angle", "rad", 1.0, "rad"),
    unit("angle", "deg", std::f64::consts::PI / 180.0, "deg"),
    unit("current", "A", 1.0, "a"),
    unit("current", "mA", 0.001, "ma"),
    unit("voltage", "V", 1.0, "v"),
    unit("voltage", "mV", 0.001, "mv"),
    unit("voltage", "kV", 1_000.0, "kv"),
    unit("ratio", "1", 1.0, "ratio"),
    unit("ratio", "%", 0.01, "percent"),
    unit("ratio", "ppm", 1e-6, "ppm"),
    unit("ratio", "ppb", 1e-9, "ppb"),
];

impl Unit {
    /// The unit with this name.
    pub fn named(name: &str) -> Result<Self> {
        UNITS.iter().find(|unit| unit.name == name).copied().ok_or_else(|| {
            let by_suffix =
                UNITS.iter().find(|unit| unit.suffix == name.to_lowercase()).map(|unit| unit.name);
            let near = by_suffix.or_else(|| suggest(name, UNITS.iter().map(|unit| unit.name)));
            Error::config(format!("unknown unit '{name}'")).with_help(near.map_or_else(
                || "units are written like degC, km/h, m3/s, kWh; docs/cleaning.md has them all".to_owned(),
                |near| format!("did you mean '{near}'?"),
            ))
        })
    }

    /// Whether values of one can be values of the other; an error names both dimensions.
    pub fn check(self, to: Self) -> Result<()> {
        if self.dimension == to.dimension {
            return Ok(());
        }
        let message =
            format!("'{}' is a unit of {}, '{}' one of {}", self.name, self.dimension, to.name, to.dimension);
        let same = UNITS.iter().filter(|unit| unit.dimension == self.dimension);
        let names: Vec<&str> = same.map(|unit| unit.name).collect();
        Err(Error::config(message).with_help(format!("units of {}: {}", self.dimension, names.join(", "))))
    }

    /// A value of this unit as one of another of the same dimension.
    pub fn convert(self, value: f64, to: Self) -> f64 {
        (value + self.add) * self.factor / to.factor - to.add
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(value: f64, from: &str, to: &str) -> f64 {
        Unit::named(from).unwrap().convert(value, Unit::named(to).unwrap())
    }

    #[test]
    fn well_known_values() {
        for (value, from, to, expected) in [
            (32.0, "degF", "degC", 0.0),
            (212.0, "degF", "degC", 100.0),
            (-40.0, "degC", "degF", -40.0),
            (0.0, "K", "degC", -273.15),
            (36.0, "km/h", "m/s", 10.0),
            (60.0, "mph", "km/h", 96.560_64),
            (1.0, "kn", "km/h", 1.852),
            (1.0, "atm", "hPa", 1_013.25),
            (1.0, "bar", "psi", 14.503_773_773),
            (1.0, "kWh", "MJ", 3.6),
            (3.6, "m3/h", "l/s", 1.0),
            (1.0, "gal", "l", 3.785_411_784),
            (16.0, "oz", "lb", 1.0),
            (180.0, "deg", "rad", std::f64::consts::PI),
            (3_000.0, "rpm", "Hz", 50.0),
            (12.5, "%", "1", 0.125),
        ] {
            let actual = convert(value, from, to);
            assert!(
                (actual - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                "{value} {from} is {actual} {to}"
            );
        }
    }

    #[test]
    fn there_and_back_is_the_same_for_every_pair() {
        for from in UNITS {
            for to in UNITS.iter().filter(|to| to.dimension == from.dimension) {
                let back = to.convert(from.convert(12.5, *to), *from);
                assert!((back - 12.5).abs() < 1e-9, "{} and {}", from.name, to.name);
            }
        }
        assert!(Unit::named("km").unwrap().check(Unit::named("kg").unwrap()).is_err());
        assert!(Unit::named("kmh").unwrap_err().to_string().contains("did you mean 'km/h'?"));
    }

    #[test]
    fn names_are_unique_and_so_are_suffixes_in_a_dimension() {
        for (at, unit) in UNITS.iter().enumerate() {
            for other in &UNITS[at + 1..] {
                assert_ne!(unit.name, other.name);
                assert!(unit.dimension != other.dimension || unit.suffix != other.suffix, "{}", unit.name);
            }
        }
    }
}
