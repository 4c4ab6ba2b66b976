# Copyright (C) the ngx_http_iothub_module authors

# The control calls, /simulator/...: for tests and people, without a token.

package IoTHub::Simulator::Control;

use v5.36;
use strict;
use warnings;

use IoTHub::Simulator::Identity;
use IoTHub::Simulator::JSON qw(json json_decode json_object);
use IoTHub::Simulator::Token qw(percent_decode);

use constant WAIT_MS => 10_000;

# A handler returns (status, value); value is what JSON is made of, or a
# reference to JSON text.  Returning nothing, it answers later by itself.

my %CALL = (
    'GET journal'        => \&get_journal,
    'DELETE journal'     => \&clear_journal,
    'GET messages'       => \&get_messages,
    'GET devices'        => \&get_devices,
    'POST devices'       => \&add_devices,
    'PUT devices/*'      => \&put_device,
    'GET devices/*'      => \&get_device,
    'DELETE devices/*'   => \&remove_device,
    'POST policies'      => \&set_policies,
    'GET settings'       => \&get_settings,
    'POST settings'      => \&set_settings,
    'GET faults'         => \&get_faults,
    'POST faults'        => \&set_faults,
    'GET connections'    => \&get_connections,
    'DELETE connections' => \&close_connections,
    'GET wait'           => \&wait_for,
    'POST shutdown'      => \&shut_down,
);


sub new($class, $server) {
    return bless { server => $server, hub => $server->{hub} }, $class;
}


sub call($self, $connection, $request) {
    my (undef, $name, @rest) = @{ $request->{segments} };
    my $call = join '/', $name // '', map { '*' } @rest;
    my $handler = $CALL{"$request->{method} $call"};

    return $self->answer($connection, 404, { error => 'no such call',
        calls => [sort keys %CALL] }) unless $handler;

    my @result = eval { $self->$handler($request, $connection, @rest) };
    @result = (400, { error => $@ =~ s/\s+\z//r }) if $@;

    $self->answer($connection, @result) if @result;
    return;
}


sub answer($self, $connection, $status, $value) {
    $connection->send_answer({
        status => $status,
        type   => 'application/json',
        body   => ref $value eq 'REF' ? $$$value : json($value) . "\n",
        date   => $self->{hub}->date,
    }, {});
    return;
}


sub body_of($request) {
    my $value = json_decode($request->{body});
    die "the body is not JSON\n" unless defined $value;
    return $value;
}


sub filter_of($query) {
    my %filter = map { ($_ => $query->{$_}) }
        grep { defined $query->{$_} }
        qw(after op device status accepted brief);
    return \%filter;
}


sub get_journal($self, $request, @) {
    my $text = $self->{hub}{journal}->json_entries(
        filter_of($request->{query}));
    return (200, \\$text);
}


sub clear_journal($self, @) {
    $self->{hub}{journal}->clear;
    return (200, {});
}


sub get_messages($self, $request, @) {
    my $text = $self->{hub}{journal}->json_messages(
        filter_of($request->{query}));
    return (200, \\$text);
}


sub get_devices($self, @) {
    return (200, [map { $_->json_members } $self->{hub}{registry}->all]);
}


sub get_device($self, $request, $connection, $id) {
    my $device = $self->{hub}{registry}->find($id)
        or return (404, { error => 'no such device' });
    return (200, $device->json_members);
}


sub add_devices($self, $request, @) {
    my $ids = body_of($request);
    die "an array of device ids is needed\n" unless ref $ids eq 'ARRAY';
    check_id($_) for @$ids;

    my $added = 0;
    for my $id (@$ids) {
        next if $self->{hub}{registry}->find($id);
        $self->{hub}{registry}->put($id, {});
        $added++;
    }
    return (200, { added => $added });
}


# Changes the status of a device that is there, and nothing else of it.

sub put_device($self, $request, $connection, $id) {
    my $members = $request->{body} eq '' ? {} : body_of($request);
    die "an object is needed\n" unless ref $members eq 'HASH';
    check_id($id);

    my $wrong = IoTHub::Simulator::Identity->wrong($members);
    die "$wrong\n" if $wrong;

    my $device = $self->{hub}{registry}->find($id);
    if ($device) {
        $device->set_status($members->{status} // 'enabled');
    } else {
        $device = $self->{hub}{registry}->put($id, $members);
    }
    return (200, $device->json_members);
}


sub check_id($id) {
    die "'$id' is not a device id\n"
        unless IoTHub::Simulator::Identity->legal_id($id);
    return;
}


sub remove_device($self, $request, $connection, $id) {
    my $removed = $self->{hub}{registry}->remove($id);
    return $removed ? (200, {}) : (404, { error => 'no such device' });
}


# Without a body: the command line's and its file's policies again.

sub set_policies($self, $request, @) {
    if ($request->{body} eq '') {
        $self->{hub}{policies}->load;
    } else {
        my $named = body_of($request);
        die "an object is needed\n" unless ref $named eq 'HASH';
        $self->{hub}{policies}->replace($named);
    }
    return (200, {});
}


sub get_settings($self, @) { return (200, $self->{hub}->settings) }


sub set_settings($self, $request, @) {
    my $settings = body_of($request);
    die "an object is needed\n" unless ref $settings eq 'HASH';
    $self->{hub}->set(%$settings);
    return (200, $self->{hub}->settings);
}


sub get_faults($self, @) { return (200, $self->{hub}{faults}->list) }


sub set_faults($self, $request, @) {
    $self->{hub}{faults}->replace(body_of($request));
    return (200, $self->{hub}{faults}->list);
}


sub get_connections($self, @) { return (200, $self->{server}->counts) }


sub close_connections($self, @) {
    return (200, { closed => $self->{server}->close_unused });
}


sub wait_for($self, $request, $connection, @) {
    my $query   = $request->{query};
    my $filter  = filter_of($query);
    my $count   = $query->{count} // 1;
    my $timeout = $query->{timeout} // WAIT_MS;
    die "count and timeout are numbers\n"
        if grep { !/^[0-9]{1,9}\z/ } $count, $timeout;

    my $journal = $self->{hub}{journal};
    my $loop    = $self->{server}{loop};
    my $timer;

    my $waiter = $journal->wait_for($filter, $count, sub ($reached) {
        $loop->cancel($timer) if $timer;
        $connection->{on_close} = undef;
        $self->answer($connection, 200,
            { count => $reached, reached => \1 });
    }) or return;

    $timer = $loop->after($timeout / 1000, sub {
        $journal->forget($waiter);
        $connection->{on_close} = undef;
        $self->answer($connection, 408,
            { count => $waiter->{count}, reached => \0 });
    });

    $connection->{on_close} = sub {
        $loop->cancel($timer);
        $journal->forget($waiter);
    };
    return;
}


sub shut_down($self, $request, $connection, @) {
    my $loop = $self->{server}{loop};
    $connection->{on_close} = sub { $loop->stop };
    $request->{keep_alive} = 0;
    return (200, {});
}

1;
