#!/usr/bin/perl

# What a hub's answers mean: runs build/unit/hub_error.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/hub_error";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
