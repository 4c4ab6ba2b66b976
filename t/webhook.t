#!/usr/bin/perl

# The body parser and the locators: runs build/unit/webhook.

use strict;
use warnings;

use FindBin;

my $program = "$FindBin::Bin/../build/unit/webhook";

-x $program or die "$program is missing: run t/run\n";

exec $program or die "$program: $!\n";
