# Copyright (C) the ngx_http_iothub_module authors

# A token bucket: so many operations a second or a minute, all of which may
# come at once.

package IoTHub::Simulator::Throttle;

use v5.36;
use strict;
use warnings;

my %SECONDS = (s => 1, m => 60);


# RATE is N/s, N/m, or N with the unit given; undef, '' and 0 are no limit.

sub new($class, $rate, $unit) {
    return undef unless defined $rate && $rate ne '' && $rate ne '0';

    my ($count, $per) = $rate =~ m{^([0-9]+(?:\.[0-9]+)?)(?:/([sm]))?\z}
        or die "rate '$rate': N/s or N/m\n";

    return bless {
        rate  => $rate,
        burst => $count < 1 ? 1 : $count,
        speed => $count / $SECONDS{$per // $unit},
        level => $count < 1 ? 1 : $count,
        time  => undef,
    }, $class;
}


# Takes n, unless there are not as many.

sub take($self, $n, $now) {
    if (defined $self->{time}) {
        $self->{level} += ($now - $self->{time}) * $self->{speed};
        $self->{level} = $self->{burst} if $self->{level} > $self->{burst};
    }
    $self->{time} = $now;

    return 0 if $self->{level} < $n;
    $self->{level} -= $n;
    return 1;
}


sub rate($self) { return $self->{rate} }

1;
