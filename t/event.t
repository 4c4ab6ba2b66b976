#!/usr/bin/perl

# Device ids, times, message ids and bodies: runs build/unit/event.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/event";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
