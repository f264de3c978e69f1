function mpc = district_power
% An invented 10 kV network of a district: two feeders from one substation, joined by a switch that stands open.
% Loads, lengths and names are made up. CC0 1.0.
mpc.version = '2';
mpc.baseMVA = 10;

% bus_i  type  Pd   Qd    Gs  Bs  area  Vm  Va  baseKV  zone  Vmax  Vmin
mpc.bus = [
	1   3  0.0  0.00  0  0  1  1  0  10  1  1.05  0.95;
	2   1  1.2  0.40  0  0  1  1  0  10  1  1.05  0.95;
	3   1  0.9  0.30  0  0  1  1  0  10  1  1.05  0.95;
	4   1  1.5  0.50  0  0  1  1  0  10  1  1.05  0.95;
	6   1  0.8  0.25  0  0  1  1  0  10  1  1.05  0.95;
	13  1  0.7  0.20  0  0  1  1  0  10  1  1.05  0.95;
	14  1  1.6  0.60  0  0  1  1  0  10  1  1.05  0.95;
	27  1  1.1  0.35  0  0  1  1  0  10  1  1.05  0.95;
];

% bus  Pg  Qg  Qmax  Qmin  Vg  mBase  status  Pmax  Pmin
mpc.gen = [
	1  8  3  20  -20  1.02  10  1  30  0;
];

% fbus  tbus  r       x       b      rateA  rateB  rateC  ratio  angle  status
mpc.branch = [
	1   2   0.0144  0.0090  0.0001  8  8  8  0  0  1;
	2   3   0.0064  0.0040  0.0001  6  6  6  0  0  1;
	3   4   0.0080  0.0050  0.0001  6  6  6  0  0  1;
	4   27  0.0096  0.0060  0.0001  4  4  4  0  0  1;
	1   6   0.0088  0.0055  0.0001  8  8  8  0  0  1;
	6   14  0.0104  0.0065  0.0001  4  4  4  0  0  1;
	6   13  0.0120  0.0075  0.0001  4  4  4  0  0  1;
	13  27  0.0112  0.0070  0.0001  4  4  4  0  0  0;
];

mpc.bus_name = {
	'Substation';
	'Railway Square';
	'Kaivokatu';
	'Aleksanterinkatu';
	'Hakaniemi';
	'Kruununhaka';
	'Siltasaari';
	'Kluuvi';
};
