# Copyright (C) the ngx_http_iothub_module authors

# What happened: every exchange, in a file and in memory, and the messages
# that the hub took.

package IoTHub::Simulator::Journal;

use v5.36;
use strict;
use warnings;

use IoTHub::Simulator::JSON qw(json json_object json_string);


# keep: so many exchanges stay in memory; the file has them all.

sub new($class, %arg) {
    my $self = bless {
        keep     => $arg{keep} // 100_000,
        file     => undef,
        number   => 0,
        entries  => [],
        messages => [],
        waiting  => [],
    }, $class;

    if (defined $arg{file}) {
        open $self->{file}, '>>:raw', $arg{file}
            or die "$arg{file}: $!\n";
        $self->{file}->autoflush(1);
    }

    return $self;
}


# Writes an exchange down.  Its entry has a short and a long part, as many
# readers need the short one only and decoding is what takes them time.

sub add($self, $exchange) {
    my $request  = $exchange->{request};
    my $accepted = $exchange->{accepted} ? 'true' : 'false';
    my $number   = ++$self->{number};

    my $short = sprintf '"n":%d,"time":%.3f,"conn":%d,"reqn":%d,"status":%d,'
        . '"accepted":%s,"method":%s,"path":%s,"uri":%s,"op":%s,"device":%s,'
        . '"fault":%s,"error":%s,"request_id":%s,"sni":%s,"tls":%s',
        $number, @$request{qw(time conn reqn)}, $exchange->{status},
        $accepted, map { json_string($_) } @$request{qw(method path uri op
        device)}, @$exchange{qw(fault error request_id)},
        @$request{qw(sni tls)};

    my $headers = public_headers($request->{list});
    my $long = '"token":' . json(public_token($exchange->{token}))
        . ',"headers":' . headers_object($headers)
        . ',"header_list":[' . join(',',
            map { '[' . json_string($_->[0]) . ',' . json_string($_->[1])
                . ']' } @$headers)
        . '],"body":' . json_string($request->{body});

    my @messages = map { json(json_object(body => $_->{body},
        system => $_->{system}, properties => $_->{properties})) }
        @{ $exchange->{messages} // [] };
    $long .= ',"messages":[' . join(',', @messages) . ']'
        if $request->{op} eq 'batch';

    print { $self->{file} } "{$short,$long}\n" if $self->{file};

    my $entry = {
        n        => $number,
        op       => $request->{op},
        device   => $request->{device} // '',
        status   => $exchange->{status},
        accepted => $exchange->{accepted} ? 1 : 0,
        short    => $short,
        long     => $long,
    };
    keep($self->{entries}, $self->{keep}, $entry);

    if ($exchange->{accepted}) {
        my $head = sprintf '"n":%d,"time":%.3f,"device":%s', $number,
            $request->{time}, json_string($request->{device});
        keep($self->{messages}, $self->{keep}, {
            n      => $number,
            device => $entry->{device},
            text   => "{$head," . substr($_, 1),
        }) for @messages;
    }

    $self->tell_waiting($entry);
    return;
}


sub keep($list, $max, $entry) {
    push @$list, $entry;
    shift @$list if @$list > $max;
    return;
}


# Of Authorization, the journal has what the token says, without signature.

sub public_headers($list) {
    return [map { lc $_->[0] eq 'authorization'
        ? [$_->[0], $_->[1] =~ s/\s.*//sr] : $_ } @$list];
}


sub headers_object($list) {
    my %headers;
    for my $header (@$list) {
        my $name = lc $header->[0];
        $headers{$name} = defined $headers{$name}
            ? "$headers{$name}, $header->[1]" : $header->[1];
    }
    return '{' . join(',', map { json_string($_) . ':'
        . json_string($headers{$_}) } sort keys %headers) . '}';
}


sub public_token($token) {
    return undef unless $token;
    return json_object(sr => $token->{sr}, se => 0 + $token->{se},
        skn => $token->{skn}, key => $token->{key});
}


# Exchanges and messages as a JSON array.  A filter has any of after,
# op, device, status, accepted; brief leaves the long part out.

sub json_entries($self, $filter) {
    my $brief = $filter->{brief};
    return '[' . join(",\n", map { $brief ? "{$_->{short}}"
        : "{$_->{short},$_->{long}}" }
        grep { matches($filter, $_) } @{ $self->{entries} }) . "]\n";
}


sub json_messages($self, $filter) {
    my %filter = map { $_ => $filter->{$_} } qw(after device);
    return '[' . join(",\n", map { $_->{text} }
        grep { matches(\%filter, $_) } @{ $self->{messages} }) . "]\n";
}


sub matches($filter, $entry) {
    return 0 if defined $filter->{after} && $entry->{n} <= $filter->{after};

    for my $name (qw(op device status accepted)) {
        my $want = $filter->{$name} // next;
        next if $name eq 'op' && $want eq 'any';
        return 0 unless $entry->{$name} eq $want;
    }
    return 1;
}


sub clear($self) {
    $self->{entries}  = [];
    $self->{messages} = [];
    $_->{count} = 0 for @{ $self->{waiting} };
    return;
}


# Calls done(count) as soon as so many exchanges match; it is the caller who
# gives up after a time, by forget().

sub wait_for($self, $filter, $count, $done) {
    my $waiter = {
        filter => $filter,
        want   => $count,
        count  => scalar(grep { matches($filter, $_) }
            @{ $self->{entries} }),
        done   => $done,
    };

    if ($waiter->{count} >= $count) {
        $done->($waiter->{count});
        return undef;
    }

    push @{ $self->{waiting} }, $waiter;
    return $waiter;
}


sub tell_waiting($self, $entry) {
    return unless @{ $self->{waiting} };

    for my $waiter (@{ $self->{waiting} }) {
        next unless matches($waiter->{filter}, $entry);
        $waiter->{count}++;
        $waiter->{done}->($waiter->{count})
            if $waiter->{count} == $waiter->{want};
    }

    $self->{waiting} =
        [grep { $_->{count} < $_->{want} } @{ $self->{waiting} }];
    return;
}


sub forget($self, $waiter) {
    $self->{waiting} = [grep { $_ != $waiter } @{ $self->{waiting} }];
    return;
}

1;
