package IoTHubTest::Storm;

# A fuzzing hub and the senders of webhooks, in one event loop: so what each
# sender is told can be held against what the hub has written for it.

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR);
use IO::Socket::INET;
use JSON::PP ();
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(time);

use IoTHubTest::Fuzz qw(may_succeed show);
use IoTHubTest::HTTP qw(compose);

my $TICK = 0.004;

# what is kept of an answer to judge it, and of the past to be shown
my ($KEPT_BYTES, $KEPT_PROBLEMS, $KEPT_EXCHANGES) = (1_000_000, 5, 40);

my $SUCCESS = qr{HTTP/\d+\.\d+ +2 *0 *[0124]};

my $json = JSON::PP->new->utf8;

# the words of the README's table of answers that these webhooks may get

my %STATUS = (
    blocked => 422, refused => 422, throttled => 503, creation_limited => 503,
    quota => 503, unavailable => 503, credentials => 503,
    misconfigured => 503, timeout => 504,
);

# until a gate opens, its hub is left alone mostly
my %GATE = map { $_ => 1 } qw(throttled quota credentials creation_limited);


# new(%options): C<fuzz>, C<seed>, C<hubs> (names), C<deadline>, C<read_timeout>
# and C<slack> (seconds), C<concurrency>

sub new {
    my ($class, %o) = @_;

    my $self = bless {
        concurrency => 64, slack => 3, %o,
        conns => {}, wheel => {}, tick => int(time / $TICK), r => '', w => '',
        sends => {}, attempts => {}, old_attempts => {}, recent => [],
        words => {}, counts => {}, problems => [], open_at => {}, at => 0,
        senders => 0, wild => 1, slowest => 0, number => $o{first} // 0,
    }, $class;

    $self->{listen} = IO::Socket::INET->new(LocalAddr => '127.0.0.1:0',
        Listen => 1024, Blocking => 0) or die "listen: $!\n";

    $self->_watch({ fh => $self->{listen},
                    read => sub { $self->_accept } });

    return $self;
}


sub port { $_[0]{listen}->sockport }
sub counts { $_[0]{counts} }
sub words { $_[0]{words} }
sub slowest { $_[0]{slowest} }
sub problems { @{ $_[0]{problems} } }
sub recent { @{ $_[0]{recent} } }

# from now on the hub answers as a good one
sub calm { $_[0]{wild} = 0 }


# ---- the event loop

# A connection is a hash with fh, and read and write, which are called when
# they can be done; write while out is not empty.

sub _watch {
    my ($self, $c) = @_;

    $c->{fd} = fileno $c->{fh};
    $self->{conns}{ $c->{fd} } = $c;
    vec($self->{r}, $c->{fd}, 1) = 1;

    return $c;
}


sub _forget {
    my ($self, $c) = @_;

    vec($self->{$_}, $c->{fd}, 1) = 0 for qw(r w);
    delete $self->{conns}{ $c->{fd} };
    close $c->{fh};
    $c->{gone} = 1;

    my $x = $c->{exchange} or return;

    $self->{surplus}{ $x->{hub} } = time
        if !$x->{single} && $x->{sent} =~ /.$SUCCESS/s;
}


sub _later {
    my ($self, $seconds, $what) = @_;

    my $tick = int((time + $seconds) / $TICK) + 1;

    push @{ $self->{wheel}{$tick} }, $what;
}


# _turn(SECONDS): what can be done now; waits as long at most

sub _turn {
    my ($self, $longest) = @_;

    my $next = ($self->{tick} + 1) * $TICK - time;

    $longest = $next < 0 ? 0 : $next
        if keys %{ $self->{wheel} } && $next < $longest;

    if (select(my $r = $self->{r}, my $w = $self->{w}, undef, $longest) > 0) {
        for my $c (values %{ $self->{conns} }) {
            my $fd = $c->{fd};

            $c->{write}->($c) if !$c->{gone} && vec($w, $fd, 1);
            $c->{read}->($c) if !$c->{gone} && vec($r, $fd, 1);
        }
    }

    my $now = int(time / $TICK);

    while ($self->{tick} < $now) {
        $_->() for @{ delete $self->{wheel}{ ++$self->{tick} } // [] };
    }
}


# wait_until(SECONDS, CONDITION): goes on until it is true, or so long

sub wait_until {
    my ($self, $seconds, $condition) = @_;

    my $end = time + $seconds;

    local $SIG{PIPE} = 'IGNORE';

    while (time < $end) {
        return 1 if $condition->();

        $self->_turn(0.02);
    }

    return $condition->();
}


# _put(CONNECTION, BYTES): what the kernel does not take now is written later

sub _put {
    my ($self, $c, $bytes) = @_;

    $c->{out} .= $bytes;
    $self->_flush($c);
}


sub _flush {
    my ($self, $c) = @_;

    return if $c->{gone};

    my $n = syswrite $c->{fh}, $c->{out};

    # what broke the connection is seen when it is read
    $n = length $c->{out} if !defined $n && !$!{EAGAIN} && !$!{EINTR};

    substr($c->{out}, 0, $n // 0) = '';
    vec($self->{w}, $c->{fd}, 1) = $c->{out} eq '' ? 0 : 1;
}


sub _problem {
    my ($self, $text, @exchanges) = @_;

    $self->{counts}{problems}++;

    return if @{ $self->{problems} } >= $KEPT_PROBLEMS;

    push @{ $self->{problems} }, join "\n", $text,
        map { $self->describe($_) } @exchanges;
}


# ---- the hub

sub _accept {
    my ($self) = @_;

    while (my $fh = $self->{listen}->accept) {
        $fh->blocking(0);
        setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, 1;

        my $c = $self->_watch({ fh => $fh, in => '', out => '', steps => [] });

        $c->{read} = sub { $self->_hub_read($c) };
        $c->{write} = sub {
            $self->_flush($c);
            $self->_hub_step($c) if $c->{out} eq '' && !$c->{paused};
        };
        $self->{counts}{connections}++;
    }
}


sub _hub_read {
    my ($self, $c) = @_;

    my $n = sysread $c->{fh}, $c->{in}, 65536, length $c->{in};

    return if !defined $n && ($!{EAGAIN} || $!{EINTR});
    return $self->_forget($c) unless $n;

    $self->_hub_parse($c);
}


sub _hub_parse {
    my ($self, $c) = @_;

    while (!$c->{gone}) {

        if (!$c->{request}) {
            $c->{in} =~ s{\A(POST|PUT|GET)\ /devices/([^/?]+)
                          [^\r\n]*\r\n(.*?\r\n)\r\n}{}sx or return;

            my ($method, $device, $fields) = ($1, $2, $3);

            $c->{request} = {
                op => $method eq 'POST' ? 'send' : lc $method,
                device => $device,
                id => _field($fields, 'iothub-messageid') // '',
                hub => _field($fields, 'host') // '',
                left => _field($fields, 'content-length') // 0,
            };

            $self->_exchange($c);
        }

        my $request = $c->{request};
        my $has = length $c->{in} < $request->{left}
            ? length $c->{in} : $request->{left};

        substr($c->{in}, 0, $has) = '';
        $request->{left} -= $has;

        return if $request->{left};

        $c->{request} = undef;
        $self->_hub_begin($c);
    }
}


sub _field {
    my ($fields, $name) = @_;

    my ($value) = $fields =~ /^\Q$name\E: (\S+)/mi;

    return $value;
}


# The head of a request is there: the exchange begins.  Where the answer before
# this one has not been written as a whole, or was not one alone, its rest may
# be taken for this one's.

sub _exchange {
    my ($self, $c) = @_;

    my $request = $c->{request};
    my $before = $c->{exchange};
    my $key = $request->{op} eq 'send'
        ? "send $request->{id}" : "$request->{op} $request->{device}";
    my $attempt = $self->_attempt($key);

    my $answer = $self->{wild}
        ? $self->{fuzz}->answer(IoTHubTest::Fuzz::random(
              "$self->{seed} $key $attempt"), $request->{op})
        : _good_answer($request->{op});

    my $x = $c->{exchange} = {
        %$request, %$answer, attempt => $attempt, sent => '', ended => 0,
        late => $before && (!$before->{single} || @{ $c->{steps} }
                            || $c->{out} ne '') ? $before : undef,
        single => @{ $answer->{steps} } == 1 ? 1 : 0,
    };

    # of what was long before nothing can be left
    $before->{late}{late} = undef if $before && $before->{late};

    $self->{counts}{ $request->{op} }++;

    push @{ $self->{recent} }, $x;
    shift @{ $self->{recent} } if @{ $self->{recent} } > $KEPT_EXCHANGES;

    push @{ $self->{sends}{ $x->{id} } }, $x
        if $x->{op} eq 'send' && $self->{sends}{ $x->{id} };

    push @{ $c->{steps} }, @{ $x->{steps} };

    $self->_hub_begin($c) if $x->{early};
}


# How often this has come; of long ago nothing is known any more.

sub _attempt {
    my ($self, $key) = @_;

    if (keys %{ $self->{attempts} } > 20_000) {
        $self->{old_attempts} = $self->{attempts};
        $self->{attempts} = {};
    }

    return $self->{attempts}{$key}
        = ($self->{attempts}{$key} // $self->{old_attempts}{$key} // 0) + 1;
}


my $GOOD_IDENTITY = '{"deviceId":"x","status":"enabled"}';

sub _good_answer {
    my ($op) = @_;

    my $bytes = $op eq 'send'
        ? "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
        : "HTTP/1.1 200 OK\r\nContent-Length: " . length($GOOD_IDENTITY)
          . "\r\n\r\n$GOOD_IDENTITY";

    return { steps => [[write => $bytes]], early => '', names => ['good'],
             plain => $op eq 'send' };
}


sub _hub_begin {
    my ($self, $c) = @_;

    $self->_hub_step($c) unless $c->{paused} || $c->{out} ne '';
}


sub _hub_step {
    my ($self, $c) = @_;

    my $x = $c->{exchange};

    while (!$c->{gone} && $c->{out} eq '' && @{ $c->{steps} }) {
        my ($what, $value) = @{ shift @{ $c->{steps} } };

        if ($what eq 'write') {
            $self->_hub_write($c, $value);

        } elsif ($what eq 'pause') {
            $c->{paused} = 1;
            $self->_later($value, sub {
                $c->{paused} = 0;
                $self->_hub_step($c);
            });
            return;

        } elsif ($what eq 'endless') {
            $self->_hub_endless($c, $value);
            return;

        } elsif ($what eq 'half') {
            $x->{ended} = 1;
            shutdown $c->{fh}, 1;

        } else {
            $x->{ended} = 1 if $what eq 'close';
            setsockopt $c->{fh}, SOL_SOCKET, SO_LINGER, pack 'II', 1, 0
                if $what eq 'reset';
            $self->_forget($c);
        }
    }

    # whoever waits for more of an answer does not wait for ever

    $self->_later(2 * $self->{fuzz}->patience, sub {
        return if $c->{gone} || $c->{exchange} != $x;

        $x->{ended} = 1;
        $self->_forget($c);
    }) unless $c->{gone};
}


sub _hub_write {
    my ($self, $c, $bytes) = @_;

    my $x = $c->{exchange};

    $x->{sent} .= $bytes if length $x->{sent} < $KEPT_BYTES;
    $self->_put($c, $bytes);
}


# As much as the other side takes, but not for ever.

sub _hub_endless {
    my ($self, $c, $bytes) = @_;

    my $many = $bytes x (1 + 4000 / length $bytes);
    my $left = $self->{fuzz}->endless_limit;
    my $end = time + $self->{fuzz}->patience;
    my $more;

    $c->{paused} = 1;

    $more = sub {
        if ($c->{gone} || $left <= 0 || time > $end) {
            $more = undef;
            $c->{paused} = 0;
            $self->_hub_step($c);
            return;
        }

        if ($c->{out} eq '') {
            $self->_hub_write($c, $many);
            $left -= length $many;
        }

        $self->_later($TICK, $more);
    };

    $more->();
}


# ---- the senders

# run(%options): sends webhooks to C<port> of nginx for C<seconds>, or so many
# as C<count> says, then waits for their answers; C<check> is called now and
# then and ends it by a true value

sub run {
    my ($self, %o) = @_;

    my $end = time + $o{seconds};
    my $last = $self->{number} + ($o{count} // 1e12);
    my $checked = time;
    my $broken;

    local $SIG{PIPE} = 'IGNORE';

    while (time < $end && !$broken && $self->{number} < $last) {

        while ($self->{senders} < $self->{concurrency}
               && $self->{number} < $last)
        {
            $self->_send($o{port}, $o{hub});
        }

        $self->_turn(0.02);

        if ($o{check} && time - $checked >= 1) {
            $broken = $o{check}->();
            $checked = time;
        }
    }

    $self->wait_until($self->{deadline} + $self->{slack} + 5,
                      sub { $self->{senders} == 0 });

    # what looked wrong is judged again after a while
    $self->wait_until(5, sub { !keys %{ $self->{sends} } });

    return $broken;
}


# end(): closes all connections

sub end {
    my ($self) = @_;

    $self->_forget($_) for grep { $_->{fh} != $self->{listen} }
        values %{ $self->{conns} };
}


sub _hub {
    my ($self) = @_;

    my $names = $self->{hubs};
    my $now = time;

    for (1 .. @$names) {
        my $name = $names->[$self->{at}++ % @$names];

        return $name if ($self->{open_at}{$name} // 0) <= $now;
    }

    return $names->[$self->{at}++ % @$names];
}


sub _send {
    my ($self, $port, $hub) = @_;

    my $n = ++$self->{number};
    my $random = IoTHubTest::Fuzz::random("$self->{seed} webhook $n");
    my $back = $random->percent(30) ? $random->below(300) : 0;
    my $device = 'd-' . ($n > $back ? $n - $back : $n);

    $hub //= $self->_hub;

    my $raw = _webhook($random, $hub, $device, "w-$n");
    my $s = $self->_sender($port) or return;

    $self->{sends}{"w-$n"} = [];
    $self->{senders}++;
    $self->{counts}{webhooks}++;

    @$s{qw(n hub device in busy start)} = ($n, $hub, $device, '', 1, time);

    # some do not wait
    if ($self->{wild} && $random->percent(2)) {
        $self->_later(0.001 * $random->below(700), sub {
            return if $s->{gone} || !$s->{busy} || $s->{n} != $n;

            $self->{counts}{aborts}++;
            $self->_sender_gone($s);
        });
    }

    $self->_put($s, $raw);
}


sub _webhook {
    my ($random, $hub, $device, $id) = @_;

    my %common = (version => $random->percent(5) ? '1.0' : '1.1',
                  keepalive => $random->percent(80));
    my $data = 'x' x $random->weighed(80, 10, 15, 1000, 5, 9000);
    my $form = "event=temp&coreid=$device&event_id=$id&data=$data";

    return compose(GET => "/?hub=$hub&$form", %common)
        if length $data == 10 && $random->percent(10);

    return compose(POST => "/?hub=$hub", %common, body => $form,
        headers => ['Content-Type' => 'application/x-www-form-urlencoded'])
        if $random->percent(60);

    return compose(POST => "/?hub=$hub", %common,
        body => qq({"event":"temp","coreid":"$device","event_id":"$id",)
                . qq("data":"$data"}),
        headers => ['Content-Type' => 'application/json']);
}


sub _sender {
    my ($self, $port) = @_;

    my $kept = pop @{ $self->{idle} };

    return $kept if $kept && !$kept->{gone};

    my $fh = IO::Socket::INET->new(PeerAddr => '127.0.0.1', Blocking => 0,
        PeerPort => $port, Proto => 'tcp') or return;
    my $s = $self->_watch({ fh => $fh, in => '', out => '' });

    $s->{read} = sub { $self->_sender_read($s) };
    $s->{write} = sub { $self->_flush($s) };

    return $s;
}


sub _sender_gone {
    my ($self, $s) = @_;

    if ($s->{busy}) {
        $s->{busy} = 0;
        $self->{senders}--;
        delete $self->{sends}{"w-$s->{n}"};
    }

    @{ $self->{idle} } = grep { $_ != $s } @{ $self->{idle} // [] };
    $self->_forget($s);
}


sub _sender_read {
    my ($self, $s) = @_;

    my $n = sysread $s->{fh}, $s->{in}, 65536, length $s->{in};

    return if !defined $n && ($!{EAGAIN} || $!{EINTR});

    if (!$s->{busy}) {
        $self->_problem("webhook w-$s->{n} got more than an answer: "
                        . show($s->{in})) if $n;
        return $self->_sender_gone($s);
    }

    my $answer = IoTHubTest::HTTP::parse($s->{in}, 'POST', !$n);

    if ($answer && $answer->{complete}) {
        $self->_judge($s, $answer);

    } elsif (!$n) {
        $self->_unanswered($s);
    }
}


sub _unanswered {
    my ($self, $s) = @_;

    # the first try on a kept connection may meet its end
    if ($s->{in} eq '' && $s->{used} && !@{ $self->{sends}{"w-$s->{n}"} }) {
        $self->{counts}{'met the end'}++;

    } else {
        $self->_problem("webhook w-$s->{n} got no whole answer: "
                        . show($s->{in}), @{ $self->{sends}{"w-$s->{n}"} });
    }

    $self->_sender_gone($s);
}


sub _judge {
    my ($self, $s, $answer) = @_;

    my %told = (n => $s->{n}, hub => $s->{hub}, in => $s->{in},
                host => "$s->{hub}.azure-devices.net",
                start => $s->{start}, took => time - $s->{start},
                exchanges => $self->{sends}{"w-$s->{n}"});

    @told{qw(word wrong)} = _word($answer);

    my ($word, $took) = @told{qw(word took)};

    $self->{slowest} = $took if $took > $self->{slowest};
    $self->{words}{$word}++;

    $told{wrong} //= 'came too late'
        if $took > $self->{deadline} + $self->{slack};
    $told{wrong} //= 'is followed by more bytes'
        if length $s->{in} != 4 + length($answer->{head})
                              + length $answer->{body};

    $self->{open_at}{ $s->{hub} } = time
        + ($answer->{headers}{'retry-after'} // 0)
        if $GATE{$word};

    # the hub may not have read its last request yet

    if (defined $told{wrong} || defined $self->_contradiction(\%told)) {
        $self->_later(1, sub { $self->_sentence(\%told) });

    } else {
        delete $self->{sends}{"w-$s->{n}"};
    }

    $s->{busy} = 0;
    $s->{used} = 1;
    $s->{in} = '';
    $self->{senders}--;

    # others are watched for more bytes until nginx closes them
    push @{ $self->{idle} }, $s
        if ($answer->{headers}{connection} // 'close') ne 'close';
}


sub _sentence {
    my ($self, $told) = @_;

    delete $self->{sends}{"w-$told->{n}"};

    my $wrong = $told->{wrong} // $self->_contradiction($told) // return;

    # A success that follows a whole answer some time later is that of the next
    # request, for all that nginx can know.  The hub may have closed the
    # connection without reading that one.

    if (!defined $told->{wrong} && $told->{word} eq 'delivered'
        && ($self->{surplus}{ $told->{host} } // 0) > $told->{start})
    {
        $self->{counts}{surplus}++;
        return;
    }

    $self->_problem(sprintf("webhook w-%d, hub %s: the answer %s, after %.3f "
        . "s: %s\n  again: IOTHUB_TEST_FUZZ_SEED=%s "
        . "IOTHUB_TEST_FUZZ_WEBHOOK=%d IOTHUB_TEST_FUZZ_HUB=%s",
        @$told{qw(n hub)}, $wrong, $told->{took}, show($told->{in}),
        $self->{seed}, @$told{qw(n hub)}), @{ $told->{exchanges} });
}


# _word(ANSWER): its word, and what is wrong with it

sub _word {
    my ($answer) = @_;

    my $status = $answer->{status};
    my $type = $answer->{headers}{'content-type'} // '';

    return ('delivered', $answer->{body} ne '' ? 'has a body' : undef)
        if $status == 204;

    my $problem = eval { $json->decode($answer->{body}) };

    return ($status, 'is no problem document')
        if $type ne 'application/problem+json' || ref $problem ne 'HASH';

    my $word = $problem->{code} // '';
    my $retry = $answer->{headers}{'retry-after'};

    return ($word, 'has a word that it should not have')
        if ($STATUS{$word} // 0) != $status;
    return ($word, 'is not like its status')
        if ($problem->{status} // 0) != $status
           || grep { !length($problem->{$_} // '') } qw(title detail);
    return ($word, 'has a wrong Retry-After')
        if $status == 503 ? ($retry // '') !~ /^[1-9]\d{0,2}\z/
                          : defined $retry;

    return $word;
}


# Does the hub say something else than the sender was told?

sub _contradiction {
    my ($self, $told) = @_;

    my @exchanges = @{ $told->{exchanges} };

    if ($told->{word} eq 'delivered') {
        return if grep { _may_be_success($_) } @exchanges;
        return 'is a success, and the hub gave none';
    }

    # of what took longer, a call may have been given up
    return if $told->{took} >= $self->{read_timeout};
    return if !grep { $_->{plain} && !$_->{late} } @exchanges;
    return 'is none, and the hub gave one';
}


sub _may_be_success {
    my ($x) = @_;

    return 1 if may_succeed($x->{sent}, $x->{ended});

    for (my $at = $x; $at->{late}; $at = $at->{late}) {
        return 1 if "$at->{late}{sent}$at->{sent}" =~ $SUCCESS;
    }

    return 0;
}


# ---- for a person

# describe(EXCHANGE): what the hub did, and how to get it again

sub describe {
    my ($self, $x) = @_;

    my @lines = sprintf '  %s of %s %s, hub %s, attempt %d: %s%s',
        $x->{op}, $x->{device}, $x->{id}, $x->{hub}, $x->{attempt},
        join(' + ', @{ $x->{names} }),
        $x->{late} ? ' (after an unfinished answer)' : '';

    my @steps = @{ $x->{steps} };

    while (my $step = shift @steps) {
        my ($what, $value) = @$step;
        my $pieces = 1;

        if ($what eq 'write') {
            while (@steps && $steps[0][0] eq 'write') {
                $value .= (shift @steps)->[1];
                $pieces++;
            }
        }

        push @lines, '    ' . ($pieces > 1 ? "$pieces writes" : $what)
            . (!defined $value ? '' : $what eq 'pause' ? " $value s"
                                                       : ' ' . show($value));
    }

    return join "\n", @lines;
}


1;
