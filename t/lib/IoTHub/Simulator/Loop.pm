# Copyright (C) the ngx_http_iothub_module authors

# The event loop: file descriptors and timers, on select(), which for some
# hundreds of descriptors costs Perl less than poll().

package IoTHub::Simulator::Loop;

use v5.36;
use strict;
use warnings;

use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);


sub new($class) {
    return bless {
        readers => '',
        writers => '',
        objects => {},
        timers  => [],
        running => 0,
    }, $class;
}


# The object gets on_readable and on_writable, for what was asked for by
# want_read and want_write.

sub add($self, $fd, $object) {
    $self->{objects}{$fd} = $object;
    return;
}


sub remove($self, $fd) {
    delete $self->{objects}{$fd};
    vec($self->{readers}, $fd, 1) = 0;
    vec($self->{writers}, $fd, 1) = 0;
    return;
}


sub want_read($self, $fd, $on) {
    vec($self->{readers}, $fd, 1) = $on ? 1 : 0;
    return;
}


sub want_write($self, $fd, $on) {
    vec($self->{writers}, $fd, 1) = $on ? 1 : 0;
    return;
}


# Calls back once, after so many seconds.  Returns a timer for cancel().

sub after($self, $seconds, $call) {
    my $timer = {
        at   => clock_gettime(CLOCK_MONOTONIC) + $seconds,
        call => $call,
    };

    # sorted, the next one last
    my $timers = $self->{timers};
    my ($low, $high) = (0, scalar @$timers);
    while ($low < $high) {
        my $middle = ($low + $high) >> 1;
        if ($timers->[$middle]{at} > $timer->{at}) {
            $low = $middle + 1;
        } else {
            $high = $middle;
        }
    }
    splice @$timers, $low, 0, $timer;

    return $timer;
}


sub cancel($self, $timer) {
    $timer->{call} = undef;
    return;
}


sub every($self, $seconds, $call) {
    $self->after($seconds, sub {
        $call->();
        $self->every($seconds, $call);
    });
    return;
}


sub stop($self) {
    $self->{running} = 0;
    return;
}


sub run($self) {
    $self->{running} = 1;
    $self->once while $self->{running};
    return;
}


sub once($self) {
    my $timers  = $self->{timers};
    my $timeout = 1;
    if (@$timers) {
        my $left = $timers->[-1]{at} - clock_gettime(CLOCK_MONOTONIC);
        $timeout = $left if $left < $timeout;
        $timeout = 0 if $timeout < 0;
    }

    my $found = select(my $readable = $self->{readers},
        my $writable = $self->{writers}, undef, $timeout);

    if ($found > 0) {
        $self->call_all($readable, 'on_readable');
        $self->call_all($writable, 'on_writable');
    }

    my $now = clock_gettime(CLOCK_MONOTONIC);
    while (@$timers && $timers->[-1]{at} <= $now) {
        my $call = (pop @$timers)->{call};
        $call->() if $call;
    }
    return;
}


# An earlier call may have removed an object that select() found.

sub call_all($self, $set, $method) {
    my $bits = unpack 'b*', $set;
    my $fd   = -1;

    while (($fd = index $bits, '1', $fd + 1) >= 0) {
        my $object = $self->{objects}{$fd} or next;
        $object->$method;
    }
    return;
}

1;
