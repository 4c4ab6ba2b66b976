#!/usr/bin/perl

# What the sender gets for whatever the hub says, row by row of the hub's
# errors, for a message, for a creation and for the question about a device:
# the word and the status, what is called how often, and that no answer but
# the hub's own success makes a 2xx.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json encode_json);
use Test::More;
use Time::HiRes qw(time);
use IoTHubTest;

# what refused keys are told in, once a minute and hub
my $t = IoTHubTest->new(allow => [qr/lacks the right|refuses every key/]);
my $hub = $t->hub(tls => 0);

my $form = 'application/x-www-form-urlencoded';
my $LATER = 100;
my $AGAIN = 4;

my %NAME = (
    400000 => 'GenericBadRequest', 400001 => 'InvalidProtocolVersion',
    400003 => 'InvalidOperation', 400004 => 'ArgumentInvalid',
    400005 => 'ArgumentNull', 400006 => 'IotHubFormatError',
    400011 => 'DeviceDefinedMultipleTimes',
    400013 => 'BulkRegistryOperationFailure', 400021 => 'RequestCanceled',
    400024 => 'RequestTimedOut',
    400027 => 'ConnectionForcefullyClosedOnNewConnection',
    400029 => 'ConnectionForcefullyClosedOnFaultInjection',
    400030 => 'ConnectionRejectedOnFaultInjection',
    400103 => 'InvalidContentEncodingOrType',
    401000 => 'GenericUnauthorized', 401001 => 'IotHubNotFound',
    401002 => 'IotHubUnauthorizedAccess', 401003 => 'IotHubUnauthorized',
    403000 => 'GenericForbidden', 403001 => 'IotHubSuspended',
    403002 => 'IotHubQuotaExceeded',
    403010 => 'OperationNotAvailableInCurrentTier',
    403011 => 'KeyEncryptionKeyRevoked', 403012 => 'DeviceDisabled',
    404000 => 'GenericNotFound', 404001 => 'DeviceNotFound',
    404012 => 'IotHubFailingOver', 405000 => 'GenericMethodNotAllowed',
    405102 => 'OperationNotAllowedInCurrentState',
    408000 => 'GenericRequestTimeout', 409000 => 'GenericConflict',
    409001 => 'DeviceAlreadyExists', 409102 => 'DeviceLocked',
    412001 => 'PreconditionFailed', 413001 => 'MessageTooLarge',
    413002 => 'TooManyDevices', 415000 => 'GenericUnsupportedMediaType',
    429000 => 'GenericTooManyRequests', 429001 => 'ThrottlingException',
    429002 => 'ThrottleBacklogLimitExceeded',
    429003 => 'ThrottlingBacklogTimeout',
    429004 => 'ThrottlingMaxActiveJobCountExceeded',
    429005 => 'DeviceThrottlingLimitExceeded',
    499000 => 'ClientClosedRequest', 500000 => 'GenericServerError',
    500001 => 'ServerError', 500008 => 'GenericTimeout',
    502000 => 'GenericBadGateway', 503000 => 'GenericServiceUnavailable',
    503001 => 'ServiceUnavailable', 503005 => 'ServerBusy',
    503006 => 'IotHubRestoring', 504000 => 'GenericGatewayTimeout',
);

# What passes, whichever call gets it.

my @PASSING = qw(400021 400024 400027 400029 400030 404012 408000 409000
    409102 499000 500000 500001 500008 502000 503000 503001 503005 503006
    504000);

# The tables: a word, what the module does, and the answers of which that is
# so: codes of the hub, or statuses of something in front of it, which has no
# code.  What is done:
#
#   once     it is final
#   again    it is repeated, and may succeed
#   gate     likewise, when the gate is open again
#   alone    it is final, and closes a gate
#   keys     the other key is tried, then final
#   ask      the registry is asked, which knows the device
#   keys ask both
#   create   the device is created, and the message sent
#   exists   so it is there: it is asked about, and the message sent

my @SEND = (
    [refused => once => qw(400000 400003 400004 400005 400006 400011 400013
        400103 413001 413002 400 413 414 431)],
    [misconfigured => once => qw(400001 403001 403010 403011 405000 405102
        412001 415000 404 405 410 412 415 206 301 302 307 402 418 451)],
    [blocked => once => 403012],
    [unavailable => again => @PASSING, qw(409001 408 409 499 500 501 502 503
        504 507 599)],
    [misconfigured => again => 404000],
    [throttled => gate => qw(429000 429001 429002 429003 429004 429005 429)],
    [quota => alone => 403002],
    [credentials => 'keys ask' => qw(401000 401001 401002 401003 401)],
    [credentials => ask => qw(403000 403)],
    [delivered => create => 404001],
);

my @CREATE = (
    [misconfigured => once => qw(400000 400001 400003 400004 400005 400006
        400011 403001 403010 403011 405000 405102 413001 415000 400 404 405
        413 415 302)],
    [creation_limited => once => 413002],
    [unavailable => again => @PASSING, qw(408 499 500 502 503 504)],
    [misconfigured => again => 404000],
    [creation_limited => gate => qw(429001 429002 429003 429)],
    [quota => alone => 403002],
    [credentials => keys => qw(401000 401002 401003 401)],
    [credentials => alone => qw(403000 403)],
    [delivered => exists => qw(409001 412001 409)],
);

# The question is put once: when it is not answered, the next webhook asks,
# if the registry's gate is open.

my @ASK = (
    [credentials => once => qw(400004 400001 400021 403010 404012 404000
        405000 408000 409000 500001 503001 504000 500 404 502)],
    [credentials => gate => qw(429001 403002)],
    [credentials => keys => qw(401002 401)],
    [credentials => alone => qw(403000 403)],
    [delivered => create => 404001],
);


# forms(ANSWER): the shapes in which it comes, as members of a fault: both
# formats of the hub's body, and with its header alone or its body alone

sub forms {
    my ($answer) = @_;

    return map { { name => $_, status => $answer, format => $_ } }
        qw(empty html garbage) if $answer < 1000;

    my ($status) = $answer =~ /^(...)/;
    my $name = $NAME{$answer} or die "no name for $answer\n";

    my $one = encode_json({
        Message => "ErrorCode:$name;HUBTEXT", ExceptionMessage =>
            'Tracking ID:1bc3-G:20-TimeStamp:02/05/2021 10:03:38' });
    my $two = encode_json({ ExceptionMessage => '', Message =>
        encode_json({ errorCode => 0 + $answer, message => 'HUBTEXT',
                      info => undef }) });

    return (
        (map { { name => "format $_", code => $answer, error => $name,
                 format => $_, message => 'HUBTEXT' } } 1, 2),
        bare("$status Odd", "iothub-errorcode: $name\r\n", '', 'no body'),
        bare("$status Odd", '', $one, 'format 1, no header'),
        bare("$status Odd", '', $two, 'format 2, no header'),
    );
}


# bytes of an answer, on a connection that is kept

sub bare {
    my ($status, $head, $body, $name) = @_;

    return { name => $name, keep => JSON::PP::true,
             raw => "HTTP/1.1 $status\r\n$head"
                . 'Content-Length: ' . length($body) . "\r\n\r\n$body" };
}


# ---- the rows of all tables: webhooks, each of a device of its own

my (@rows, @hubs, @faults, @known);

# row(NAME, WORD, CALLS, %options): CALLS as text or pattern; known: is the
# identity there?  own: a hub of its own, because a gate of it may close; slow:
# goes first; again: sent once more at the end

sub row {
    my ($name, $word, $calls, %o) = @_;

    my $device = 'row-' . @rows;

    push @hubs, 'hub-' . @hubs if $o{own};
    push @known, map { $device . '-again' x $_ } 0 .. $AGAIN if $o{known};
    push @faults, map { { $o{uri} ? (device_re => "^$device(?:-again)*\$")
                                  : (device => $device), %$_ } }
        @{ $o{faults} };

    push @rows, {
        name => $name, word => $word, calls => $calls, device => $device,
        uri => ($o{uri} // '/') . '?hub=' . ($o{own} ? $hubs[-1] : 'contoso'),
        retry_after => $o{retry_after}, again => $o{again},
        slow => $o{slow} // 0,
    };
}


sub status_of { return substr $_[0], 0, 3 }
sub calls { return join ', ', @_ }


# A failure that passes may do so after one call.  Or it does not: then the
# third answer says when, which is after the deadline.

sub passing_rows {
    my ($name, $word, $op, $fault, $status, $before, $after, %o) = @_;

    my $gate = delete $o{gate};
    my $failed = "$op $status";
    my @later = { %$fault, op => $op,
        $fault->{raw}
            ? (raw => $fault->{raw} =~ s/\r\n/\r\nRetry-After: $LATER\r\n/r)
            : (retry_after => $LATER) };
    my @faults = map { { %$fault, op => $op, times => $_ } } 1, 2;

    row("$name, for ever", $word, calls(@$before, ($failed) x ($gate ? 1 : 3)),
        %o, retry_after => $LATER, faults => [$gate ? () : $faults[1], @later]);
    row("$name, once", 'delivered', calls(@$before, $failed, @$after), %o,
        slow => $gate ? 1 : 0, faults => [$faults[0]]);
}


for (@SEND) {
    my ($word, $done, @answers) = @$_;

    for my $answer (@answers) {
        my $status = status_of($answer);
        my $sent = "send $status";
        my @forms = forms($answer);

        # a hub each: not for all forms
        @forms = @forms[0, 1] if $done !~ /^(?:once|again|create)$/;

        for my $form (@forms) {
            my ($name, $fault) = fault_of(send => $answer, $form);
            my @fault = (faults => [{ %$fault, op => 'send' }]);

            if ($done eq 'once') {
                row($name, $word, $sent, @fault, known => 1);

            } elsif ($done eq 'again' || $done eq 'gate') {
                passing_rows($name, $word, send => $fault, $status, [],
                    ['send 204'], known => 1,
                    $done eq 'gate' ? (own => 1, gate => 1) : ());

            } elsif ($done eq 'alone') {
                row($name, $word, $sent, @fault, known => 1, own => 1,
                    retry_after => 60);

            } elsif ($done eq 'create') {
                row($name, $word, calls($sent, 'create 200', 'send 204'),
                    faults => [{ %$fault, op => 'send', times => 1 }]);

            } else {
                row($name, $word, calls(($sent) x ($done =~ /keys/ ? 2 : 1),
                    'get 200'), @fault, known => 1, own => 1,
                    retry_after => 10);
            }
        }
    }
}


for (@CREATE) {
    my ($word, $done, @answers) = @$_;

    for my $answer (@answers) {
        my $status = status_of($answer);
        my @before = ('send 404');
        my $put = "create $status";
        my @forms = forms($answer);

        @forms = @forms[0, 1] if $done !~ /^(?:once|again)$/;

        for my $form (@forms) {
            my ($name, $fault) = fault_of(create => $answer, $form);
            my @fault = (faults => [{ %$fault, op => 'create' }]);

            if ($done eq 'once') {
                row($name, $word, calls(@before, $put), @fault);

            } elsif ($done eq 'again' || $done eq 'gate') {
                passing_rows($name, $word, create => $fault, $status,
                    \@before, ['create 200', 'send 204'],
                    $done eq 'gate' ? (own => 1, gate => 1) : ());

            } elsif ($done eq 'exists') {

                # another has created it, but this answer is not in time
                $fault->{accept} = JSON::PP::true;

                row($name, $word, calls(@before, $put, 'get 200',
                    'send 204'), faults => [{ %$fault, op => 'create' }]);

            } else {
                row($name, $word,
                    calls(@before, ($put) x ($done eq 'keys' ? 2 : 1)),
                    @fault, own => 1,
                    retry_after => $word eq 'quota' ? 60 : 10);
            }
        }
    }
}


for (@ASK) {
    my ($word, $done, @answers) = @$_;

    for my $answer (@answers) {
        my $status = status_of($answer);
        my ($form) = forms($answer);
        my ($name, $fault) = fault_of(get => $answer, $form);
        my $get = "get $status";

        # the device's messages are refused, so that the registry is asked

        my %refused = (op => 'send', code => 403000);

        if ($done eq 'create') {
            row($name, $word, calls('send 403', $get, 'create 200',
                'send 204'), faults => [{ %refused, times => 1 },
                                        { %$fault, op => 'get' }]);
            next;
        }

        row($name, $word,
            calls('send 403', ($get) x ($done eq 'keys' ? 2 : 1)),
            faults => [\%refused, { %$fault, op => 'get' }], known => 1,
            own => 1, again => $done eq 'once');
    }
}


sub fault_of {
    my ($op, $answer, $form) = @_;

    my %fault = %$form;
    my $name = delete $fault{name};

    return ("$op $answer, $name", \%fault);
}


# a text that means a device that is not there

for my $text ('The hub does not contain the specified device row.',
              'Device row not found', 'device row is not registered')
{
    for my $format (1, 2) {
        row("send 401 \"$text\", format $format", 'delivered',
            calls('send 401', 'create 200', 'send 204'), faults => [
                { op => 'send', code => 401003, message => $text,
                  format => $format, times => 1 }]);
    }
}


# what is no answer of a hub, or not a whole one: of a message, then of a
# creation, each for ever and once

my %noise = (
    'no HTTP' => { raw => "garbage\r\n\r\n" },
    'bytes' => { raw => "\0\1\2\3" x 50 },
    'nothing but a body' => { raw => 'ok' },
    'half a status line' => { raw => 'HTTP/1.1 20' },
    'half a head' => { raw => "HTTP/1.1 204 No Content\r\nContent-Le" },
    'half a body' => { raw => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n"
        . "\r\nshort" },
    'half a chunk' => { raw => "HTTP/1.1 200 OK\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n5\r\nab" },
    'chunks without an end' => { raw => "HTTP/1.1 200 OK\r\n"
        . "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n" },
    'chunks that are none' => { raw => "HTTP/1.1 200 OK\r\n"
        . "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" },
    'half an error' => { raw => "HTTP/1.1 400 Bad Request\r\n"
        . "Content-Length: 100\r\n\r\n{\"Message\":\"ErrorCode:Arg" },
    'a head that is too large' => { raw => "HTTP/1.1 204 No Content\r\nX: "
        . ('x' x 20_000) . "\r\n\r\n" },
    'an interim answer only' => { raw => "HTTP/1.1 100 Continue\r\n\r\n" },
    'an error that is too large' => { status => 500, oversize => 300_000 },
    'close at the request' => { close => 'request' },
    'close' => { close => 'before' },
    'close in the middle' => { close => 'middle' },
    'reset' => { reset => JSON::PP::true },
);

for my $what (sort keys %noise) {
    for my $op (qw(send create)) {

        # a creation's success is any 2xx: that its answer ended is not asked
        next if $op eq 'create' && $what =~ /204|head that/;

        my @before = $op eq 'create' ? ('send 404') : ();
        my @known = $op eq 'send' ? (known => 1) : ();
        my $begin = join '', map { "$_, " } @before;
        my $after = $op eq 'create' ? 'create 200, send 204' : 'send 204';

        # where the connection had been kept alive, nginx itself repeats

        row("$op: $what, for ever", 'unavailable',
            qr/^$begin$op \d+(?:, $op \d+)+$/, uri => '/soon', @known,
            slow => 1, faults => [{ %{ $noise{$what} }, op => $op }]);
        row("$op: $what, once", 'delivered', qr/^$begin$op \d+, $after$/,
            @known, faults => [{ %{ $noise{$what} }, op => $op,
                                 times => 1 }]);
    }
}


# successes, in whatever shape

my %success = (
    '204 with a length' => { raw => "HTTP/1.1 204 No Content\r\n"
        . "Content-Length: 0\r\n\r\n", keep => JSON::PP::true },
    '204 with a length that is not so' => { raw => "HTTP/1.1 204 No Content"
        . "\r\nContent-Length: 50\r\n\r\n", keep => JSON::PP::true },
    '204 with a body' => { raw => "HTTP/1.1 204 No Content\r\n"
        . "Content-Length: 38\r\n\r\n"
        . "HTTP/1.1 404 Not Found\r\nX-Smuggled: 1\r\n", keep =>
        JSON::PP::true },
    '204 of HTTP/1.0' => { raw => "HTTP/1.0 204 No Content\r\n\r\n" },
    '204 and a redirect within nginx' => { raw => "HTTP/1.1 204 No Content"
        . "\r\nX-Accel-Redirect: /fine\r\n\r\n", keep => JSON::PP::true },
    '200 in chunks' => { raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
        . "chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", keep => JSON::PP::true },
    '200 until the end' => { raw => "HTTP/1.1 200 OK\r\n\r\nall of it" },
    '200, large' => { status => 200, oversize => 300_000 },
    '201' => { status => 201 }, '202' => { status => 202 },
);

row($_, 'delivered', qr/^send 20\d$/, known => 1,
    faults => [{ op => 'send', %{ $success{$_} } }]) for sort keys %success;

# What nginx may take for an answer that does not end: the message is sent
# again then.

row("$_ before the answer", 'delivered', qr/^send 204(?:, send 204)?$/,
    known => 1, slow => 2,
    faults => [{ op => 'send', interim => $_, times => 1 }])
    for 100, 102, 103;


# ---- the gateway: a hub for each row that closes a gate, all the same one

sub block {
    my ($name) = @_;

    my $block = $hub->block('register missing rate=off; zone 256k; '
                            . 'proxy_connect_timeout 1s;');

    return $block =~ s/^iothub \S+/iothub $name/r . "\n";
}

$t->nginx(join('', map { block($_) } 'contoso', @hubs) . <<'CONF');

    iothub_secret off;

    log_format outcome '$iothub_device_id|$iothub_result|$iothub_hub_status|'
                       '$iothub_hub_error|$iothub_hub_request_id|'
                       '$iothub_delivery_time|$request_time';
    access_log %%TESTDIR%%/access.log outcome;

    error_page 401 404 405 413 415 422 500 502 503 504 =200 /fine;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_deadline 10s; iothub_pass $arg_hub; }
        location /soon { iothub_deadline 2s; iothub_pass $arg_hub; }
        location /slow { iothub_deadline 1s; iothub_pass contoso; }
        location /ok { iothub_accepted 200; iothub_pass contoso; }
        location = /fine { return 200 "fine"; }
    }

CONF

my %STATUS = (delivered => 204, refused => 422, blocked => 422);


sub webhook {
    my ($device, $uri) = @_;

    return [POST => $uri, headers => { 'Content-Type' => $form },
            body => "coreid=$device&event=e&data=SECRETDATA"];
}


# what is wrong with the answer to a webhook that was not delivered, as text

sub wrong {
    my ($answer, $word) = @_;

    my $status = $STATUS{$word} // 503;
    my $problem = eval { decode_json($answer->{body}) } // {};
    my $after = $answer->{headers}{'retry-after'} // '';
    my %wrong = (
        code => ($problem->{code} // '') ne $word,
        'status in the document' => ($problem->{status} // 0) != $status,
        type => ($answer->{headers}{'content-type'} // '')
            ne 'application/problem+json',
        'Retry-After' => $status == 503
            && ($after !~ /^\d+$/ || $after < 1 || $after > 300),
        leak => scalar($answer->{raw} =~ /SECRETDATA|HUBTEXT|SharedAccess/),
    );

    return join ', ', grep { $wrong{$_} } sort keys %wrong;
}


$hub->add(@known);
$hub->faults(\@faults);

note(@rows . ' rows, ' . @hubs . ' hubs');

# those that wait go first, while there are others to go with them

@rows = sort { $b->{slow} <=> $a->{slow} } @rows;

my @answers = $t->parallel([map { webhook($_->{device}, $_->{uri}) } @rows],
                           $t->is_static ? 24 : 48);

# A call that runs when the deadline comes makes a timeout of it, which is not
# what the row is about: again then, as another device.

my $again = 0;

for my $i (grep { $rows[$_]{uri} =~ /soon/ } 0 .. $#rows) {
    for (1 .. $AGAIN) {
        last if $answers[$i]{status} != 504;

        $again++;
        $rows[$i]{device} .= '-again';
        ($answers[$i]) = $t->parallel(
            [webhook($rows[$i]{device}, $rows[$i]{uri})], 1);
    }
}

my (%calls, %ids);

for my $call ($hub->journal) {
    my $device = $call->{device};

    push @{ $calls{$device} }, "$call->{op} $call->{status}";

    $ids{$device}{ $call->{headers}{'iothub-messageid'} // 'none' } = 1
        if $call->{op} eq 'send';
}

for my $i (0 .. $#rows) {
    my $row = $rows[$i];
    my ($name, $word, $device) = @$row{qw(name word device)};
    my $answer = $answers[$i];
    my $failed = $word ne 'delivered';
    my $calls = join ', ', @{ $calls{$device} // [] };
    my @ids = keys %{ $ids{$device} };

    my %expected = (
        status => $STATUS{$word} // 503, wrong => '', ids => 1,
        calls => ref $row->{calls} && $calls =~ $row->{calls}
            ? $calls : $row->{calls},
    );

    my %got = (
        status => $answer->{status}, calls => $calls,
        wrong => $failed ? wrong($answer, $word) : '',
        ids => scalar(grep { $_ ne 'none' } @ids),
    );

    if ($failed && $row->{retry_after}) {
        $expected{retry_after} = $row->{retry_after};
        $got{retry_after} = $answer->{headers}{'retry-after'};
    }

    is_deeply(\%got, \%expected, "$name: $word, $row->{calls}");
}

# one line of the log tells it

ok($t->wait_for_log(qr/^row-/, file => 'access.log',
                    count => @rows + $again), 'all of them are in the log');

my %logged = map { /^(row-[^|]+)\|(.*)/ ? ($1 => [split /\|/, $2]) : () }
    $t->log_lines(qr/^row-/, 'access.log');
my %failed = map { /device: "(row-[^"]+)", step: \w+, result: (\w+)/
                       ? ($1 => $2) : () }
    $t->log_lines(qr/ iothub event not delivered, /);

is_deeply([grep { $logged{ $_->{device} }[0] ne $_->{word} } @rows], [],
          'with their results');
is_deeply([grep { ($failed{ $_->{device} } // 'delivered') ne $_->{word} }
           @rows], [], 'those that failed in the error log, too');

my %named = map { $_->{name} => $logged{ $_->{device} }[2] } @rows;

is($named{"send $_, format 1"}, $NAME{$_}, "$_: by its name")
    for qw(400004 403010 403011 405102 415000);
is($named{"send $_, format 2, no header"}, $NAME{$_}, "$_: by its code")
    for qw(400004 403010 403011 405102 415000);


subtest 'a question that was not answered is put again' => sub {
    my @again = grep { $_->{again} } @rows;

    my @answers = $t->parallel(
        [map { webhook($_->{device}, $_->{uri}) } @again], 8);

    for my $i (0 .. $#again) {
        my $row = $again[$i];

        is($answers[$i]{status}, 503, "$row->{name}: again 503");
        is(join(', ', map { "$_->{op} $_->{status}" }
                $hub->journal(device => $row->{device})),
           "$row->{calls}, $row->{calls}", "$row->{name}: asked again");
    }
};


my $n = 0;


# a webhook of a device of its own, which exists, under a fault

sub send_to {
    my ($uri, $rule) = @_;

    my $device = 'dev-' . ++$n;

    $hub->add($device);
    $hub->faults([{ op => 'send', device => $device, %$rule }]);

    my $answer = $t->post($uri, "coreid=$device&event=e&data=SECRETDATA");

    $answer->{device} = $device;

    return $answer;
}


subtest 'the success is the one that was told to make' => sub {
    $hub->faults([]);

    my $answer = send_to('/ok', { raw => "HTTP/1.1 204 No Content\r\n"
        . "Content-Length: 0\r\n\r\n", keep => JSON::PP::true });

    is($answer->{status}, 200, 'a 200');
    is($answer->{body}, '', 'no body');
};


# What is left on a connection after an answer is never the next one's.

subtest 'an answer does not reach into the next' => sub {
    my $smuggled = "HTTP/1.1 204 No Content\r\nX-Smuggled: 1\r\n\r\n";

    for my $n (1 .. 3) {
        send_to('/ok', { keep => JSON::PP::true,
            raw => "HTTP/1.1 204 No Content\r\nContent-Length: "
                . length($smuggled) . "\r\n\r\n$smuggled" });
        is(send_to('/?hub=contoso', { code => 400004 })->{status}, 422,
           "after a 204, $n");

        send_to('/ok', { keep => JSON::PP::true,
            raw => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok$smuggled"
        });
        is(send_to('/?hub=contoso', { code => 400004 })->{status}, 422,
           "after a 200, $n");
    }
};


subtest 'deadline' => sub {
    my $device = 'hang';

    $hub->add($device);
    $hub->faults([{ op => 'send', device => $device, delay => 3000 }]);

    my $start = time;
    my $answer = $t->request('POST', '/slow', keepalive => 1,
                             body => "coreid=$device&event=e",
                             headers => { 'Content-Type' => $form });
    my $took = time - $start;
    my $problem = eval { decode_json($answer->{body}) } // {};

    is($answer->{status}, 504, 'a 504');
    is($problem->{code}, 'timeout', 'timeout');
    ok(!exists $answer->{headers}{'retry-after'}, 'no Retry-After');
    ok($took >= 0.95 && $took < ($t->is_static ? 2 : 1.15),
       "on time: $took s");
    like($answer->{headers}{connection}, qr/close/,
         'the connection is not used again');

    ok($t->wait_for_log(qr/call ended after the deadline.*hub status: 204/),
       'what came later is in the log');

    $hub->faults([]);
    $answer = $t->request('POST', '/ok', keepalive => 1,
                          body => 'coreid=hang&event=e',
                          headers => { 'Content-Type' => $form });

    unlike($answer->{headers}{connection} // '', qr/close/,
           'otherwise it may be');
};


subtest 'log' => sub {
    $hub->faults([]);
    $hub->add('last');
    is($t->post('/?hub=contoso', 'coreid=last&event=e')->{status}, 204,
       'delivered');

    ok($t->wait_for_log(qr/^last\|delivered\|204\|-\|[\w-]+\|0\.\d{3}\|/m,
                        file => 'access.log'), 'in the access log');
    unlike($t->error_log(no_debug => 1), qr/SECRETDATA|HUBTEXT|SharedAccess/,
           'nothing of the hub or the event in the error log');
    like($t->error_log, qr/iothub event not delivered, hub: "hub-\d+", (?x:
         )device: "row-\d+", step: send, result: quota, hub status: 403, (?x:
         )hub error: "IotHubQuotaExceeded", hub request id: "[\w-]+", (?x:
         )tries: 1/, 'all of a failure in one line');

    my $before = qr/hub status: 0, hub error: "", hub request id: "", (?x:
                    )tries: 0/;

    is($t->post('/ok', 'coreid=&event=e')->{status}, 422,
       'rejected');
    like($t->error_log, qr/iothub event not delivered, hub: "contoso", (?x:
         )device: "", step: webhook, result: rejected, $before: (?x:
         )the webhook has no device id/, 'the same before a call');
    is($t->post('/?hub=nowhere', 'coreid=last&event=e')->{status}, 503,
       'misconfigured');
    like($t->error_log, qr/device: "last", step: webhook, (?x:
         )result: misconfigured, $before/, 'the device is named');
    is($t->post('/?hub=contoso', 'coreid=a%20b&event=e')->{status}, 422,
       'rejected: no device id');
    unlike($t->error_log(no_debug => 1), qr/device: "a b"/,
           'what is none is not');
};

$t->done;
