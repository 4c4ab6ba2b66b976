#!/usr/bin/perl

# Senders as they come: slow, in bits, in crowds, with several webhooks on one
# connection over HTTP/1.1 and HTTP/2; and as they go, at the moments that
# abort.t leaves out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::HTTP qw(compose converse);
use IoTHubTest::HTTP2;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);
my $form = 'application/x-www-form-urlencoded';
my $slower = $t->is_static || $ENV{IOTHUB_TEST_VALGRIND} ? 3 : 1;

sub block {
    my ($name, $more) = @_;

    $more //= 'register missing rate=off;';

    return $hub->block("zone 1m; $more") =~ s/^iothub \S+/iothub $name/r;
}

$t->nginx(join("\n", 'events { worker_connections 4096; }', 'http {',
    block('contoso'), block('throttled'),
    block(limited => 'register missing rate=4r/s burst=1;'),
    map({ block("probed-$_") } 0 .. 5), <<'CONF'));

    iothub_secret off;

    log_format outcome '$iothub_device_id ${iothub_result}.';
    access_log %%TESTDIR%%/access.log outcome;

    server {
        listen 127.0.0.1:%%PORT_8080%% backlog=1024;
        listen 127.0.0.1:%%PORT_h2%% http2;

        keepalive_requests 10000;
        client_body_timeout 5s;

        location / { iothub_pass contoso; }
        location /throttled { iothub_pass throttled; }
        location /limited { iothub_pass limited; }
        location /probed { iothub_pass $arg_hub; }
        location /soon { iothub_deadline 400ms; iothub_pass contoso; }
        location /quick { iothub_deadline 2s; iothub_pass contoso; }

        location /patient {
            client_body_timeout 500ms;
            iothub_pass contoso;
        }

        location /open { iothub_accepted 200; iothub_pass contoso; }
    }
}

CONF

my @workers = $t->worker_pids;


sub body { return "event=temp&coreid=$_[0]&data=" . ($_[1] // 1) }


sub webhook {
    my ($device, $uri, %o) = @_;

    return [POST => $uri // '/', body => body($device),
            headers => { 'Content-Type' => $form }, %o];
}


sub connection {
    my ($port) = @_;

    return IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                 PeerPort => $t->port($port))
        || die "connect: $!\n";
}


# say_to(SOCKET, BYTES...)

sub say_to {
    my ($s, @bytes) = @_;

    local $SIG{PIPE} = 'IGNORE';

    print $s @bytes;
    $s->flush;
}


# all of the answers that come on a connection, one after the other; then
# whether it was closed

sub read_answers {
    my ($s, $count, $timeout) = @_;

    my ($in, @answers, $ended) = ('');
    my $until = time + ($timeout // 20);

    while (time < $until && @answers < $count) {
        next unless IO::Select->new($s)->can_read(0.2);

        $ended = !sysread $s, $in, 65536, length $in;

        while (my $answer = IoTHubTest::HTTP::parse($in, 'POST', 0)) {
            push @answers, $answer;

            my $length = $answer->{headers}{'content-length'} // 0;

            $in = substr $in, length($answer->{head}) + 4 + $length;
        }

        last if $ended;
    }

    return (\@answers, $ended ? 1 : 0);
}


# the word in an answer's body, or its status

sub told {
    my ($answer) = @_;

    my $problem = eval { decode_json($answer->{body} // '') } // {};

    return $problem->{code} // $answer->{status};
}


sub calls_of {
    my ($device) = @_;

    return join ', ', map { "$_->{op} $_->{status}" }
        $hub->journal(device => $device);
}


# the sockets of all workers

sub sockets {
    return scalar grep { (readlink($_) // '') =~ /^socket:/ }
        map { glob "/proc/$_/fd/*" } $t->worker_pids;
}

my $sockets = sockets();


# ---- the ways to come, and to go

my %come = (
    1 => sub {
        my ($device, $uri) = @_;
        my $s = connection(8080);

        say_to($s, compose(@{ webhook($device, $uri) }));

        return $s;
    },

    2 => sub {
        my ($device, $uri) = @_;
        my $h2 = IoTHubTest::HTTP2->connect($t->port('h2'));

        $h2->request($uri // '/', body($device));

        return $h2;
    },
);

sub reset_connection {
    my ($s) = @_;

    setsockopt $s, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
    close $s;
}

my %ways = (
    'HTTP/1.1, closed' => [1, sub { close $_[0] }],
    'HTTP/1.1, reset' => [1, \&reset_connection],
    'HTTP/2, closed' => [2, sub { $_[0]->close }],
    'HTTP/2, reset' => [2, sub { reset_connection($_[0]->socket) }],
    'HTTP/2, stream reset' => [2, sub { $_[0]->reset(1) }],
    'HTTP/2, nonsense' => [2, sub { $_[0]->write("\0" x 9, 'nonsense') }],
);

my @ways = sort keys %ways;


# leave(MOMENT, %options): senders go in all ways, each of its own device.
# faults: of a device; begun: has it come so far?; known: is it in the hub?
# Returns the devices and their ways.

sub leave {
    my ($moment, %o) = @_;

    my $slug = $moment =~ s/\W+/-/gr;
    my @devices = map { "$slug-$_" } 0 .. $#ways;
    my (@senders, @gone);

    $hub->add(@devices) if $o{known} // 1;
    $hub->faults([map { my $device = $_;
                        map { { device => $device, %$_ } }
                            @{ $o{faults} // [] } } @devices]);

    for my $i (0 .. $#ways) {
        my ($version) = @{ $ways{ $ways[$i] } };

        push @senders, $come{$version}->($devices[$i], $o{uri});
    }

    for my $i (0 .. $#ways) {
        ok($o{begun}->($devices[$i]), "$moment: begun, $ways[$i]");
        $ways{ $ways[$i] }[1]->($senders[$i]);
    }

    return map { [$devices[$_], $ways[$_], $senders[$_]] } 0 .. $#ways;
}


# go_on(MOMENT, DEVICES, RESULTS, %options): what the log says of those that
# are gone, and that the next webhook of each is answered soon, with the same

sub go_on {
    my ($moment, $gone, $results, %o) = @_;

    for (@$gone) {
        my ($device, $way) = @$_;
        my $wanted = ref $results ? $results->($way) : $results;

        $t->wait_for_log(qr/^$device /, file => 'access.log');
        like(join('', $t->log_lines(qr/^$device /, 'access.log')),
             qr/^$device (?:$wanted)\.$/, "$moment: in the log, $way");
    }

    $hub->faults([]) unless $o{faults};

    my @next = $t->parallel([map { webhook($_->[0], $o{uri}) } @$gone], 6);

    for my $i (0 .. $#$gone) {
        is(told($next[$i]), $o{next} // 204,
           "$moment: the next webhook, $gone->[$i][1]");
        cmp_ok($next[$i]{time}, '<', ($o{soon} // 1) * $slower,
               "$moment: soon, $gone->[$i][1]");
    }
}


subtest 'gone while a failed call waits to be repeated' => sub {
    my $moment = 'backoff';
    my @gone = leave($moment,
        faults => [{ op => 'send', status => 503, retry_after => 1,
                     times => 1 }],
        begun => sub {
            $hub->wait_for(send => 1, 10, device => $_[0]) && sleep 0.1;
        });

    go_on($moment, \@gone, 'delivered');

    is(calls_of($_->[0]), 'send 503, send 204, send 204',
       "$moment: repeated nevertheless, $_->[1]") for @gone;
};


subtest 'gone while a call runs that fails for good' => sub {
    my $moment = 'refused';
    my @gone = leave($moment,
        faults => [{ op => 'send', code => 400004, delay => 500,
                     times => 1 }],
        begun => sub { $hub->wait_for(send => 1, 10, device => $_[0]) });

    go_on($moment, \@gone, 'refused');

    ok(scalar $t->log_lines(
        qr/\[error\].* device: "$_->[0]", step: send, result: refused, (?x:
         )hub status: 400, hub error: "ArgumentInvalid"/),
       "$moment: an error line with what the hub said, $_->[1]") for @gone;
};


subtest 'gone while a call runs that may be repeated' => sub {
    my $moment = 'failed';
    my @gone = leave($moment,
        faults => [{ op => 'send', status => 500, delay => 500,
                     times => 1 }],
        begun => sub { $hub->wait_for(send => 1, 10, device => $_[0]) });

    # nginx does not see that a sender of HTTP/1.1 is gone

    go_on($moment, \@gone, sub {
        $_[0] =~ m{HTTP/1} ? 'delivered' : 'delivered|unavailable|timeout' });

    for (@gone) {
        my ($device, $way) = @$_;

        like(calls_of($device), $way =~ m{HTTP/1}
                ? qr/^send 500, send 204, send 204$/
                : qr/^send 500, send 204(?:, send 204)?$/,
             "$moment: repeated, if nginx cannot know, $way");
        ok($way =~ m{HTTP/1} || scalar $t->log_lines(
            qr/\[error\].* device: "$device", step: send, (?x:
             )result: \w+, hub status: \d+,/),
           "$moment: else an error line, $way");
    }
};


subtest 'gone while the registry is asked' => sub {
    my $moment = 'asked';

    $hub->settings({ disabled_status => 401 });

    my $disable = sub {
        my ($device) = @_;

        return $hub->wait_for(get => 1, 10, device => $device);
    };

    $hub->add(map { "$moment-$_" } 0 .. $#ways);
    $hub->disable("$moment-$_") for 0 .. $#ways;

    my @gone = leave($moment,
        faults => [{ op => 'get', delay => 600, times => 1 }],
        begun => $disable);

    go_on($moment, \@gone, 'blocked', next => 'blocked');

    is(calls_of($_->[0]), 'send 401, send 401, get 200',
       "$moment: what was learned is known, $_->[1]") for @gone;
};


subtest 'gone while a gate is closed' => sub {
    my $moment = 'gate';

    $hub->add('closes');
    $hub->faults([{ op => 'send', device => 'closes', status => 429,
                    retry_after => 2, times => 1 }]);

    my $first = $come{1}->('closes', '/throttled');

    ok($t->wait_for_log(qr/gate closed, hub: "throttled"/), 'closed');

    my @gone = leave($moment, uri => '/throttled', faults => [],
                     begun => sub { sleep 0.02 });

    is(scalar $hub->journal(device => qr/^gate-/), 0, 'they wait');
    go_on($moment, \@gone, 'delivered|throttled|timeout', soon => 5,
          uri => '/throttled');
    is((read_answers($first, 1))[0][0]{status}, 204, 'the first, too');
};


# The probe of a gate is one webhook's call, and all others wait for it.

subtest 'gone while its call probes a gate' => sub {
    my @devices = map { "probe-$_" } 0 .. $#ways;
    my @others = map { "others-$_" } 0 .. $#ways;
    my @uris = map { "/probed?hub=probed-$_" } 0 .. $#ways;
    my (@senders, @waiting);

    $hub->add(@devices, @others);
    $hub->faults([map { (
        { op => 'send', device => $_, status => 429, times => 1 },
        { op => 'send', device => $_, status => 500, times => 1,
          delay => 1500 * $slower },
    ) } @devices]);

    for my $i (0 .. $#ways) {
        push @senders, $come{ $ways{ $ways[$i] }[0] }->($devices[$i],
                                                        $uris[$i]);
    }

    for my $i (0 .. $#ways) {
        ok($hub->wait_for(send => 2, 10, device => $devices[$i]),
           "it probes, $ways[$i]");
        push @waiting, $come{1}->($others[$i], $uris[$i]);
    }

    sleep 0.1;
    is(scalar $hub->journal(device => qr/^others-/), 0, 'others wait');

    my $start = time;

    $ways{ $ways[$_] }[1]->($senders[$_]) for 0 .. $#ways;

    for my $i (0 .. $#ways) {
        is((read_answers($waiting[$i], 1))[0][0]{status}, 204,
           "the other is delivered, $ways[$i]");
    }

    cmp_ok(time - $start, '<', 4 * $slower, 'soon');
};


subtest 'gone while a creation waits for its turn' => sub {
    my $moment = 'turn';

    $hub->faults([]);
    $t->parallel([webhook('takes-a-turn', '/limited')], 1);

    my @gone = leave($moment, known => 0, uri => '/limited',
        begun => sub { $hub->wait_for(send => 1, 10, device => $_[0]) });

    go_on($moment, \@gone, 'delivered|creation_limited|timeout', soon => 6,
          uri => '/limited');

    is(scalar $hub->journal(device => $_->[0], op => 'create'), 1,
       "$moment: created once, $_->[1]") for @gone;
};


subtest 'gone right at the deadline, which is 400 ms' => sub {
    my @devices = map { "race-$_" } 1 .. 72;
    my @open;

    $hub->add(@devices);
    $hub->faults([map { { op => 'send', device => "race-$_", times => 1,
                          delay => 370 + $_ % 9 * 10 } } 1 .. 72]);

    while (@devices || @open) {
        if (@devices) {
            my $device = shift @devices;
            my $way = $ways[@devices % @ways];
            my ($version, $go) = @{ $ways{$way} };

            push @open, [$come{$version}->($device, '/soon'), $go,
                         time + 0.38 + rand 0.04];
        }

        my $now = time;

        $_->[1]->($_->[0]) for grep { $_->[2] <= $now } @open;
        @open = grep { $_->[2] > $now } @open;
        sleep 0.004;
    }

    ok($t->wait_for_log(qr/^race-\d+ (?:delivered|timeout)\.$/, count => 72,
                        file => 'access.log'), 'each has a result');

    my %told = map { /^(race-\d+) (\w+)/ ? ($1 => $2) : () }
        $t->log_lines(qr/^race-/, 'access.log');
    my %line = map { /device: "(race-\d+)"/ ? ($1 => 1) : () }
        $t->log_lines(qr/\[error\]/);

    is_deeply([grep { $told{$_} eq 'timeout' && !$line{$_} } sort keys %told],
              [], 'and, if it was not delivered, an error line');

    my %message = map { $_->{device} => 1 } $hub->messages;

    is_deeply([grep { $told{$_} eq 'delivered' && !$message{$_} }
               sort keys %told], [], 'what is said to be delivered is');

    $hub->faults([]);

    my @next = $t->parallel([map { webhook("race-$_") } 1 .. 72], 8);

    is((grep { $_->{status} == 204 } @next), 72, 'the next of each');
};


subtest 'nonsense on a connection with many streams under way' => sub {
    my @devices = map { "broken-$_" } 1 .. 20;
    my $h2 = IoTHubTest::HTTP2->connect($t->port('h2'));

    $hub->add(@devices[0 .. 9]);
    $hub->faults([{ op => 'any', device_re => '^broken-', delay => 300,
                    times => 20 }]);

    $h2->request('/', body($_)) for @devices;
    $hub->wait_for(send => 1, 10, device => $_) for @devices;

    $h2->write("\0\0\1\0\0\0\0\0\0x");    # DATA of stream 0
    $h2->answers(20, 10);
    ok($h2->{goaway}, 'nginx says so');
    $h2->close;

    ok($t->wait_for_log(qr/^broken-\d+ \w+\.$/, count => 20,
                        file => 'access.log'), 'all are in the log');

    my @next = $t->parallel([map { webhook($_) } @devices], 5);

    is((grep { $_->{status} == 204 } @next), 20, 'the next of each');

    my %puts;

    $puts{ $_->{device} }++ for $hub->journal(op => 'create',
                                              device => qr/^broken-/);
    is((grep { $_ > 1 } values %puts), 0, 'none is created twice');
};


# ---- slow senders, and bodies in bits

# what is written of a webhook, piece by piece

sub pieces {
    my ($kind, $device, $uri) = @_;

    my $body = $kind =~ /JSON/
        ? qq({"coreid":"$device","event":"temp","data":") . 'x' x 60 . '"}'
        : body($device, 'x' x 60);
    my @headers = ('Content-Type' => $kind =~ /JSON/ ? 'application/json'
                                                     : $form);
    my $head = compose(POST => $uri, headers => \@headers,
        body => $kind =~ /chunk/ ? [split //, $body] : $body);

    my $start = index($head, "\r\n\r\n") + 4;
    my $rest = substr $head, $start;

    $head = substr $head, 0, $start;

    return ($kind =~ /head/ ? $head =~ /(.{1,7})/gs : $head,
            $kind =~ /chunk/ ? $rest =~ /(1\r\n.\r\n|0\r\n\r\n)/g
                             : split //, $rest);
}


subtest 'byte by byte: longer than the deadline, which starts later' => sub {
    my @kinds = ('form', 'JSON', 'form in chunks', 'JSON in chunks',
                 'form and head');
    my @senders;

    for my $n (0 .. 24) {
        my $kind = $kinds[$n % @kinds];

        push @senders, { device => "slow-$n", kind => $kind,
                         s => connection(8080),
                         pieces => [pieces($kind, "slow-$n", '/quick')] };
    }

    my $h2 = IoTHubTest::HTTP2->connect($t->port('h2'));
    my $body = body('slow-h2', 'x' x 60);
    my $id = $h2->request('/quick', substr($body, 0, 1), part => 1);
    my $at = 1;
    my $start = time;

    while (grep { @{ $_->{pieces} } } @senders) {
        for (@senders) {
            say_to($_->{s}, shift @{ $_->{pieces} }) if @{ $_->{pieces} };
        }

        if ($at < length $body) {
            $h2->data($id, substr($body, $at, 1), $at + 1 == length $body);
            $at++;
        }

        sleep 0.025;
    }

    cmp_ok(time - $start, '>', 2, 'that was slow');

    for (@senders) {
        my ($answers) = read_answers($_->{s}, 1);

        is($answers->[0]{status}, 204, "$_->{kind}: $_->{device}");
    }

    is($h2->answer($id)->{status}, 204, 'HTTP/2');
    is(scalar(grep { $_->{body} =~ /"data":"x{60}"/ }
              $hub->messages(device => qr/^slow-/)), 26, 'each whole');
};


subtest 'a body that does not go on' => sub {
    my $s = connection(8080);

    say_to($s, substr compose(@{ webhook('stalled', '/patient') }), 0, -3);

    my $answer = converse('', socket => $s, timeout => 10);

    like($answer->{status}, qr/^(?:0|408)$/, 'nginx gives up');
    is(calls_of('stalled'), '', 'and the hub does not hear of it');
    is(($t->parallel([webhook('stalled')], 1))[0]{status}, 204,
       'the next of its device');
};


subtest 'tiny chunks in one write' => sub {
    my $data = join '', map { chr(97 + $_ % 26) } 1 .. 20_000;
    my @chunks = split //, body('chunks', $data);
    my $raw = compose(POST => '/', body => \@chunks,
                      headers => ['Content-Type' => $form]);

    is($t->http($raw)->{status}, 204, scalar(@chunks) . ' chunks');

    $raw =~ s/\r\n1\r\n/\r\n1;name="a;b";other\r\n/g;
    is($t->http("$raw")->{status}, 204, 'with extensions');
    $raw =~ s/0\r\n\r\n\z/0\r\nTrailer: of no meaning\r\n\r\n/;
    is($t->http("$raw")->{status}, 204, 'and a trailer');

    is(scalar(grep { $_->{body} =~ /"data":"$data"/ }
              $hub->messages(device => 'chunks')), 3, 'each whole');
};


subtest 'Expect: 100-continue' => sub {
    for my $kind ('body', 'chunks') {
        my ($head, $body) = split /(?<=\r\n\r\n)/, compose(POST => '/open',
            headers => ['Content-Type' => $form, Expect => '100-continue'],
            body => $kind eq 'body' ? body("expect-$kind")
                                    : [body("expect-$kind")]), 2;
        my $s = connection(8080);

        say_to($s, $head);
        ok(IO::Select->new($s)->can_read(10), "$kind: asked for");
        sysread $s, my $continue, 1000;
        is($continue, "HTTP/1.1 100 Continue\r\n\r\n", "$kind: and nothing "
           . 'else');
        is(calls_of("expect-$kind"), '', "$kind: no call before it");

        say_to($s, $body);
        is((read_answers($s, 1))[0][0]{status}, 200, "$kind: delivered");

        is($t->http("$head$body")->{status}, 200,
           "$kind: of a sender that does not wait");
    }

    # the body that was asked for never comes

    my $s = connection(8080);

    say_to($s, compose(POST => '/', headers => ['Content-Type' => $form,
        Expect => '100-continue', 'Content-Length' => 30]));
    IO::Select->new($s)->can_read(10);
    close $s;

    is(($t->parallel([webhook('expect-body')], 1))[0]{status}, 204,
       'gone instead: the next');
};


# ---- several webhooks on one connection

subtest 'pipelined: each answered in its turn, with its own' => sub {
    my @sent = (
        [204 => webhook('p-1')],
        [rejected => [POST => '/', headers => ['Content-Type' => $form],
                      body => 'event=temp']],
        [malformed => [POST => '/', body => '{"coreid":',
            headers => ['Content-Type' => 'application/json']]],
        [method_not_allowed => [DELETE => '/', body => body('p-2')]],
        [204 => webhook('p-3', '/', body => ['event=temp&', 'coreid=p-3'])],
        [refused => webhook('p-4')],
        [200 => webhook('p-5', '/open')],
        [unsupported_media_type => [POST => '/', body => 'a',
            headers => ['Content-Type' => 'image/png']]],
        [blocked => webhook('p-6')],
        [204 => webhook('p-7')],
    );

    $hub->add(map { "p-$_" } 1 .. 7);
    $hub->disable('p-6');
    $hub->settings({ disabled_status => 403 });
    $hub->faults([{ op => 'send', device => 'p-1', delay => 300 },
                  { op => 'send', device => 'p-4', code => 400004 }]);

    my $s = connection(8080);

    say_to($s, join '', map { compose(@{ $_->[1] }, keepalive => 1) } @sent);

    my ($answers, $ended) = read_answers($s, scalar @sent);

    is_deeply([map { told($_) } @$answers], [map { $_->[0] } @sent],
              'in order');
    ok(!$ended, 'the connection is kept');
    is(join(' ', map { $_->{device} } $hub->messages(device => qr/^p-/)),
       'p-1 p-3 p-5 p-7', 'in the hub, too');

    # many, in writes that end anywhere

    $hub->add('many');

    my $raw = join '', map { compose(@{ webhook('many', '/') },
        body => body('many', "n$_"), keepalive => 1) } 1 .. 120;

    say_to($s, $_) for $raw =~ /(.{1,1777})/gs;

    ($answers) = read_answers($s, 120, 60);

    is((grep { $_->{status} == 204 } @$answers), 120, '120 more');
    is(join(' ', map { $_->{body} =~ /"data":"n(\d+)"/ }
            $hub->messages(device => 'many')), join(' ', 1 .. 120),
       'in order');
};


subtest 'pipelined behind one that runs into its deadline' => sub {
    $hub->add('late', 'behind');
    $hub->faults([{ op => 'send', device => 'late', delay => 1500,
                    times => 1 }]);

    my $s = connection(8080);

    say_to($s, map { compose(@$_, keepalive => 1) }
        webhook('late', '/soon'), webhook('behind'));

    my ($answers, $ended) = read_answers($s, 2, 15);

    is(scalar @$answers, 1, 'one answer');
    is(told($answers->[0]), 'timeout', 'timeout');
    is($answers->[0]{headers}{connection}, 'close', 'which closes');
    ok($ended, 'as is done');
    is(calls_of('behind'), '', 'nothing of the other, which may come again');
    is(($t->parallel([webhook('behind')], 1))[0]{status}, 204,
       'and is delivered then');
    is(scalar $hub->messages(device => 'behind'), 1, 'once');

    # a delivery that ends in time, behind one that failed in time

    $hub->faults([{ op => 'send', device => 'late', status => 503,
                    retry_after => 100 }]);
    $s = connection(8080);
    say_to($s, map { compose(@$_, keepalive => 1) }
        webhook('late', '/soon'), webhook('behind'));
    ($answers) = read_answers($s, 2, 15);

    is_deeply([map { told($_) } @$answers], ['unavailable', 204],
              'an answer in time closes nothing');
};


subtest 'one connection of a sender, for hundreds of webhooks' => sub {
    my $s = connection(8080);
    my %told;

    $hub->faults([]);
    $hub->add(map { "keep-$_" } 0 .. 9);

    for my $n (1 .. 400) {
        my $raw = compose(@{ webhook('keep-' . $n % 10) }, keepalive => 1,
            $n % 5 == 1 ? (body => [split //, body('keep-' . $n % 10)]) : (),
            $n % 5 == 2 ? (body => 'event=temp') : (),
            $n % 5 == 3 ? (headers => { 'Content-Type' => $form,
                                        Expect => '100-continue' }) : ());

        $told{ told(converse($raw, socket => $s)) }++;
    }

    is_deeply(\%told, { 204 => 320, rejected => 80 }, 'all of 400');
    ok(!IO::Select->new($s)->can_read(0), 'and it is open still');
};


subtest 'HTTP/2: many streams, and a slow one' => sub {
    my $streams = 60;
    my @devices = map { "mux-$_" } 1 .. $streams;

    $hub->add(@devices[30 .. 59]);
    $hub->faults([
        { op => 'send', device => 'mux-1', delay => 2500 * $slower,
          times => 1 },
        { op => 'send', device => 'mux-2', status => 503, times => 2 },
        { op => 'send', device => 'mux-3', code => 400004 },
        { op => 'send', device_re => '^mux-\d*5$', delay => 200 },
    ]);

    my $h2 = IoTHubTest::HTTP2->connect($t->port('h2'));
    my %device = map { $h2->request('/', body($devices[$_]),
                           $_ % 3 ? () : (body_in => 1)) => $devices[$_] }
        0 .. $#devices;
    my @answers = $h2->answers($streams, 60);
    my %told = map { $device{ $_->{id} } => told($_) } @answers;

    is(scalar @answers, $streams, 'all are answered');
    is(delete $told{'mux-3'}, 'refused', 'each with its own answer');
    is_deeply([grep { $told{$_} ne '204' } sort keys %told], [],
              'the others delivered');
    is($device{ $answers[-1]{id} }, 'mux-1', 'the slow one is the last');
    cmp_ok($answers[-2]{time}, '<', $answers[-1]{time} - 0.5,
           'and holds back nobody');
    isnt(join(' ', map { $_->{id} } @answers), join(' ', sort { $a <=> $b }
         map { $_->{id} } @answers), 'in the order of their ends');
    ok(!$h2->has_ended, 'the connection is open');

    my %messages;

    $messages{ $_->{device} }++ for $hub->messages(device => qr/^mux-/);
    is_deeply([grep { $messages{$_} != 1 } keys %messages], [],
              'a message of each');

    # all of one device, which is new, among them one that is reset

    my @ids = map { $h2->request('/', body('mux-new', "n$_")) } 1 .. 40;

    $h2->reset($ids[7]);
    $h2->answer($_, 30) for grep { $_ != $ids[7] } @ids;

    is((grep { ($h2->{streams}{$_}{status} // 0) == 204 } @ids), 39,
       'a new device: all are answered, but the one that was reset');
    is(scalar $hub->journal(device => 'mux-new', op => 'create'), 1,
       'a new device: created once');

    # no more streams, but those that are under way end

    $hub->faults([{ op => 'send', device => 'mux-40', delay => 300 }]);

    my $id = $h2->request('/', body('mux-40'));

    $h2->goaway;
    is($h2->answer($id, 10)->{status}, 204, 'GOAWAY: it is answered');
};


subtest 'hundreds of connections at once' => sub {
    my $senders = 300;
    my @devices = map { "crowd-$_" } 1 .. $senders;

    $hub->add(@devices[0 .. 199]);

    # none is answered before all of them are there

    $hub->faults([{ op => 'send', device_re => '^crowd-',
                    delay => 1000 * $slower, times => $senders }]);

    my @answers = $t->parallel([map { webhook($_) } @devices], $senders,
                               timeout => 60);

    is((grep { $_->{status} == 204 } @answers), $senders, 'all delivered');

    my %messages;

    $messages{ $_->{device} }++ for $hub->messages(device => qr/^crowd-/);
    is(scalar keys %messages, $senders, 'of each a message');
    is((grep { $_ != 1 } values %messages), 0, 'one');
};


# ---- nothing is left behind

$hub->faults([]);

ok($t->_until(20, sub { sockets() <= $sockets + $hub->connections->{open} }),
   'no connection of a sender is left')
    or diag(sockets(), " sockets, $sockets at the start, ",
            $hub->connections->{open}, ' to the hub');
is_deeply([$t->worker_pids], \@workers, 'the workers are the same');
is(scalar $t->log_lines(qr/\[(?:alert|crit|emerg)\]/), 0, 'no alert');

$t->done;
