# Copyright (C) the ngx_http_iothub_module authors

# The hub: takes a request, answers it as an IoT Hub would.

package IoTHub::Simulator::Hub;

use v5.36;
use strict;
use warnings;

use POSIX qw(strftime);
use Time::HiRes qw(time);

use IoTHub::Simulator::Errors qw(error_answer html_body);
use IoTHub::Simulator::Faults;
use IoTHub::Simulator::Identity;
use IoTHub::Simulator::Message qw(is_batch message_batch message_single);
use IoTHub::Simulator::Registry;
use IoTHub::Simulator::Throttle;
use IoTHub::Simulator::Token qw(percent_decode token_check token_parse);

# The versions of the data plane that were ever published, without the
# previews that are gone.

my %API_VERSION = map { $_ => 1 } qw(2016-02-03 2016-11-14 2017-06-30
    2018-04-01 2018-06-30 2019-03-30 2019-10-01 2020-03-13
    2020-05-31-preview 2020-09-30 2021-04-12 2024-03-31);

# What can be done where.  A path is its segments, with the device as '*'.

my %ROUTE = (
    '/devices' => { GET => 'list', POST => 'bulk' },
    '/devices/*' => { GET => 'get', PUT => 'create', DELETE => 'delete' },
    '/devices/*/messages/events' => { POST => 'send' },
);

# throttle: which of the rates the operation counts against.

my %OPERATION = (
    list   => { right => 'RegistryRead',  throttle => 'registry' },
    get    => { right => 'RegistryRead',  throttle => 'registry' },
    create => { right => 'RegistryWrite', throttle => 'registry' },
    update => { right => 'RegistryWrite', throttle => 'registry' },
    delete => { right => 'RegistryWrite', throttle => 'registry' },
    bulk   => { right => 'RegistryWrite', throttle => 'registry' },
    send   => { right => 'DeviceConnect', throttle => 'send' },
    batch  => { right => 'DeviceConnect', throttle => 'send' },
);

my %REGISTRY = (
    list   => 'list',
    get    => 'get',
    create => 'create_or_update',
    update => 'create_or_update',
    delete => 'erase',
    bulk   => 'bulk',
);

# How a message of a disabled device is refused: the documents know all
# three.

my %DISABLED = (
    401 => [401003, 'Unauthorized'],
    403 => [403012, undef],
    404 => [404001, undef],
);


sub new($class, %arg) {
    my $self = bless {
        hostnames => { map { lc $_ => 1 } @{ $arg{hostnames} } },
        policies  => $arg{policies},
        journal   => $arg{journal},
        registry  => IoTHub::Simulator::Registry->new,
        faults    => IoTHub::Simulator::Faults->new,
        watch     => undef,
        settle    => 0,
        quota     => undef,
        retry_after     => undef,
        disabled_status => 404,
        clock_offset    => 0,
        throttle        => {},
    }, $class;

    $self->set(%{ $arg{settings} });
    return $self;
}


my %SETTING = (
    settle          => qr/^[0-9]{1,9}\z/,
    quota           => qr/^[0-9]{1,9}\z/,
    retry_after     => qr/^[^\r\n]+\z/,
    disabled_status => qr/^40[134]\z/,
    clock_offset    => qr/^-?[0-9]{1,9}\z/,
);
my %RATE = (registry_rate => ['registry', 'm'], send_rate => ['send', 's']);
my %DEFAULT = (settle => 0, disabled_status => 404, clock_offset => 0);


# Settings by their names in the control call.  Checked before any is taken.

sub set($self, %given) {
    my (%values, %throttles);

    for my $name (sort keys %given) {
        my $value = $given{$name};

        if (my $rate = $RATE{$name}) {
            my ($which, $unit) = @$rate;
            $throttles{$which} =
                IoTHub::Simulator::Throttle->new($value, $unit);
            next;
        }

        my $pattern = $SETTING{$name} or die "there is no setting '$name'\n";
        die "'$value' is no value for '$name'\n"
            if defined $value && $value !~ $pattern;
        $values{$name} = $value // $DEFAULT{$name};
    }

    @$self{ keys %values } = values %values;
    @{ $self->{throttle} }{ keys %throttles } = values %throttles;
    return;
}


sub settings($self) {
    return {
        map({ $_ => $self->{$_} } keys %SETTING),
        map({ ($_ => $self->{throttle}{ $RATE{$_}[0] }
            ? $self->{throttle}{ $RATE{$_}[0] }->rate : undef) }
            keys %RATE),
    };
}


sub now($self) { return time + $self->{clock_offset} }


sub knows_host($self, $host) {
    my $known = lc $host;
    return $self->{hostnames}{$known}
        || $self->{hostnames}{ $known =~ s/:\d+\z//r };
}


# What a request is, from its head alone: sets op and device, and finds the
# fault rule for it.

sub begin($self, $request) {
    route($request);
    $request->{fault} =
        $self->{faults}->choose(@$request{qw(op device)});
    return;
}


sub route($request) {
    my @segments = @{ $request->{segments} };
    pop @segments if @segments > 1 && $segments[-1] eq '';

    my @generic = @segments;
    $generic[1] = '*' if @generic > 1;
    my $methods = $ROUTE{ join '', map { "/$_" } @generic };

    $request->{op}     = 'other';
    $request->{device} = undef;
    $request->{known_path} = $methods ? 1 : 0;
    return unless $methods;

    $request->{device} = $segments[1] if @segments > 1;

    my $operation = $methods->{ $request->{method} } // return;
    my $headers   = $request->{headers};
    $operation = 'update'
        if $operation eq 'create' && defined $headers->{'if-match'};
    $operation = 'batch'
        if $operation eq 'send' && is_batch($headers->{'content-type'} // '');

    $request->{op} = $operation;
    return;
}


# The whole request is there: carries it out or lets the fault take its
# place, and writes it down.  Returns the answer, or undef if the fault knows
# none.

sub finish($self, $request) {
    my $rule     = $request->{fault};
    my $exchange = {
        request    => $request,
        accepted   => 0,
        fault      => IoTHub::Simulator::Faults::label($rule),
        request_id => request_id(),
    };

    my $refused = $self->check_token($exchange);

    my $answer;
    unless (IoTHub::Simulator::Faults::replaces($rule)) {
        $answer = $self->operate($exchange, $refused);
    }
    $answer = IoTHub::Simulator::Faults::answer($rule, $answer);

    $exchange->{answer} = $answer;
    $exchange->{error}  = $answer->{error};
    $exchange->{status} = $self->told_status($rule, $answer);
    $self->{journal}->add($exchange);
    $self->{watch}->($exchange) if $self->{watch};

    return { %$answer, request_id => $exchange->{request_id},
        date => $self->date };
}


# A request that is none: HTTP.sys answers it, the hub never sees it.

sub refuse_raw($self, $request, $status, $title) {
    my $exchange = {
        request    => $request,
        accepted   => 0,
        status     => $status,
        fault      => undef,
        error      => $title,
        request_id => undef,
    };
    $self->{journal}->add($exchange);
    $self->{watch}->($exchange) if $self->{watch};

    return {
        status => $status,
        type   => 'text/html; charset=us-ascii',
        body   => html_body($title, "HTTP Error $status. $title."),
        close  => 1,
        date   => $self->date,
    };
}


# The status that reaches the client whole; 0 where none does.

sub told_status($self, $rule, $answer) {
    return $answer->{status} unless $rule;
    return 0 if grep { $rule->{$_} } qw(hang reset close);
    return $rule->{raw} =~ m{^HTTP/1\.[01] (\d{3})} ? $1 : 0
        if defined $rule->{raw};
    return $answer->{status};
}


sub date($self) {
    my $now = int $self->now;
    if ($now != ($self->{date_of} // 0)) {
        $self->{date_of}   = $now;
        $self->{date_text} = strftime '%a, %d %b %Y %H:%M:%S GMT',
            gmtime $now;
    }
    return $self->{date_text};
}


sub request_id() {
    return sprintf '%08x-%04x-%04x-%04x-%04x%08x', rand 2**32,
        map({ rand 2**16 } 1 .. 4), rand 2**32;
}


# Fills in exchange->{token} as the journal shows it; returns [code, text]
# where the token is not good for the request.

sub check_token($self, $exchange) {
    my $request   = $exchange->{request};
    my $operation = $OPERATION{ $request->{op} };
    my $value     = $request->{headers}{authorization};
    my $token     = defined $value ? token_parse($value) : undef;

    $exchange->{token} = { %$token{qw(sr se skn)} } if $token;
    return undef unless $operation;

    my $host   = lc($request->{headers}{host} // '');
    my $device = $request->{device};

    my ($key, $refused) = token_check($token,
        hosts    => [$host, $host =~ s/:\d+\z//r],
        path     => $request->{segments},
        right    => $operation->{right},
        device   => $device,
        policies => $self->{policies},
        identity => defined $device ? $self->{registry}->find($device)
            : undef,
        now => $self->now,
    );

    $exchange->{token}{key} = $key if $token;
    return $refused;
}


# Checks in the order of the hub, as far as that is known; then does it.

sub operate($self, $exchange, $refused) {
    my $request = $exchange->{request};
    my $op      = $request->{op};

    if ($op eq 'other') {
        return error_answer(405000) if $request->{known_path};
        return error_answer(404000, 'There is nothing here.');
    }

    my $version = $request->{query}{'api-version'} // '';
    return error_answer(400001) unless $API_VERSION{$version};
    return error_answer(@$refused) if $refused;
    return error_answer(400004, 'The device id is not legal.')
        if defined $request->{device}
        && !IoTHub::Simulator::Identity->legal_id($request->{device});
    return $self->throttled unless $self->admit($request);

    if (my $method = $REGISTRY{$op}) {
        my ($answer, $changed) = $self->{registry}->$method($request,
            $self->now + $self->{settle} / 1000);
        $exchange->{accepted} = $changed;
        return $answer;
    }

    return $self->take_messages($exchange);
}


# A bulk of N counts as N.

sub admit($self, $request) {
    my $throttle =
        $self->{throttle}{ $OPERATION{ $request->{op} }{throttle} }
        or return 1;

    my $n = 1;
    if ($request->{op} eq 'bulk') {
        $n = () = $request->{body} =~ /"id"\s*:/g;
        $n ||= 1;
    }

    return $throttle->take($n, time);
}


sub throttled($self) {
    my $answer = error_answer(429001);
    push @{ $answer->{headers} }, ['Retry-After', $self->{retry_after}]
        if defined $self->{retry_after};
    return $answer;
}


sub take_messages($self, $exchange) {
    my $request = $exchange->{request};
    my $device  = $self->{registry}->find($request->{device});

    return error_answer(404001)
        if !$device || $device->{settled} > $self->now;
    return error_answer(@{ $DISABLED{ $self->{disabled_status} } })
        if $device->disabled;

    my ($messages, $wrong) = $request->{op} eq 'batch'
        ? message_batch(@$request{qw(list body)})
        : message_single(@$request{qw(list body)});
    return error_answer(@$wrong) if $wrong;

    if (defined $self->{quota}) {
        return error_answer(403002) if $self->{quota} < @$messages;
        $self->{quota} -= @$messages;
    }

    $device->{active_at} = strftime '%Y-%m-%dT%H:%M:%S.0000000Z', gmtime;
    $exchange->{messages} = $messages;
    $exchange->{accepted} = 1;
    return { status => 204 };
}

1;
