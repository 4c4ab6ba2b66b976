#!/usr/bin/perl

# Secrets of senders: runs build/unit/sender.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/sender";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
