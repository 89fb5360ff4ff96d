;;; dap_test.el --- RipTrace under Emacs' dap-mode, an independent client -*- lexical-binding: t -*-

;;; Commentary:
;; Run by run.sh as `emacs --batch -l dap_test.el' (not -Q, which leaves out Debian's packages) against a running fleet.
;; Breakpoint, first hit, frames, an expression, the next hit and the one before, a logpoint's rows, the end; each wait
;; has a deadline that says what was waited for.

;;; Code:
(require 'package)
(package-initialize)
;; dap-mode 0.7 reads it when an adapter has exception filters, and only its user interface defines it.
(defvar dap-exception-breakpoints nil)
(require 'dap-mode)
(require 'cl-lib)

(defconst riptrace-first-hit-s 60 "As FIRST_HIT_MS in support.mjs.")
(defconst riptrace-answer-s 30 "As ANSWER_MS in support.mjs.")

(defun riptrace-required (name)
  "The value of the environment variable NAME."
  (or (getenv name) (error "%s is not set: start the tests with tests/editors/run.sh" name)))

(defconst riptrace-shop (riptrace-required "RIPTRACE_SHOP"))
(defconst riptrace-file (expand-file-name "cart/cart.go" riptrace-shop))
(defconst riptrace-adapter (list (riptrace-required "RIPTRACE_BIN") "dap"))

(defvar riptrace-stops nil "The bodies of the `stopped' events, the newest first.")
(defvar riptrace-output "" "All that was written to the console.")
(defvar riptrace-breakpoint-said nil "What the adapter said last of its breakpoints.")

(defun riptrace-saw (_session message)
  "Keep what the tests look at of the adapter's MESSAGE."
  (let ((body (gethash "body" message)))
    (pcase (gethash "event" message)
      ("stopped" (push body riptrace-stops))
      ("breakpoint" (setq riptrace-breakpoint-said (gethash "message" (gethash "breakpoint" body))))
      ("output" (setq riptrace-output (concat riptrace-output (gethash "output" body)))))))
(advice-add 'dap--on-event :before #'riptrace-saw)

(defun riptrace-wait (seconds what done)
  "Wait until DONE returns a value, and return it; fail after SECONDS with WHAT."
  (let ((deadline (+ (float-time) seconds)) value)
    (while (not (setq value (funcall done)))
      (when (> (float-time) deadline)
        (error "%s: not within %s s; of the breakpoints was said: %s" what seconds riptrace-breakpoint-said))
      (accept-process-output nil 0.1))
    value))

(defun riptrace-hit-after (what action &optional seconds)
  "Do ACTION, wait for the stop that follows and its frames; return the number of the hit.  WHAT names it."
  (let ((before (length riptrace-stops)))
    (when action (funcall action))
    (riptrace-wait (or seconds riptrace-answer-s) what
                   (lambda () (> (length riptrace-stops) before)))
    (let ((description (gethash "description" (car riptrace-stops))))
      (unless (string-match "\\`Hit \\([0-9]+\\)" description) (error "The stop says %S" description))
      (prog1 (string-to-number (match-string 1 description))
        (riptrace-wait riptrace-answer-s (concat what ": the frame")
                       (lambda ()
                         (let ((session (dap--cur-session)))
                           (and session (dap--debug-session-active-frame session)
                                (gethash (dap--debug-session-thread-id session)
                                         (dap--debug-session-thread-stack-frames session))))))))))

(defun riptrace-ask (command arguments)
  "Send COMMAND with ARGUMENTS; return the body of its response, or fail with its message."
  (let (response)
    (dap--send-message (dap--make-request command arguments)
                       (lambda (answer) (setq response answer))
                       (dap--cur-session))
    (riptrace-wait riptrace-answer-s (concat "the answer to " command) (lambda () response))
    (unless (eq t (gethash "success" response)) (error "%s: %s" command (gethash "message" response)))
    (gethash "body" response)))

(defun riptrace-go-to (marker)
  "Put point on the line of the shop that ends in MARKER; return its number."
  (goto-char (point-min))
  (unless (re-search-forward (concat "// " (regexp-quote marker) "$") nil t) (error "No line ends in %s" marker))
  (beginning-of-line)
  (line-number-at-pos))

(defun riptrace-start (name)
  "Start a session called NAME with the breakpoints that are set."
  (dap-debug (list :type "riptrace" :request "attach" :name name
                   :nats (riptrace-required "RIPTRACE_NATS") :cwd riptrace-shop)))

(defun riptrace-stop (session)
  "End SESSION and wait for the end of its process."
  (dap-disconnect session)
  (riptrace-wait riptrace-answer-s "the end of the adapter"
                 (lambda () (not (process-live-p (dap--debug-session-proc session))))))

(defvar riptrace-failed 0)
(defmacro riptrace-test (name &rest body)
  "Run BODY as the test NAME; print how it ended."
  (declare (indent 1))
  `(let ((began (float-time)) problem)
     (condition-case thrown (progn ,@body) (error (setq problem (error-message-string thrown))))
     (princ (format "%s %s (%d ms)\n" (if problem "FAILED" "ok    ") ,name (* 1000 (- (float-time) began))))
     (when problem
       (cl-incf riptrace-failed)
       (princ (format "       %s\n" problem)))))

(defun riptrace-equal (got expected)
  "Fail unless GOT is EXPECTED."
  (unless (equal got expected) (error "Got %S, expected %S" got expected)))

;; Nobody answers questions here, and no window is rearranged.
(setq dap-auto-configure-features nil dap-print-io nil dap-inhibit-io t)
(dap-register-debug-provider
 "riptrace" (lambda (configuration) (dap--put-if-absent configuration :dap-server-path riptrace-adapter)))

(let (line first frame)
  (find-file riptrace-file)
  (setq buffer-read-only t line (riptrace-go-to "BP cart-add"))

  (riptrace-test "the first hit of a breakpoint stops at its line"
    (dap-breakpoint-add)
    (riptrace-start "breakpoint")
    (setq first (riptrace-hit-after "the first hit" nil riptrace-first-hit-s))
    (riptrace-equal first 1)
    (setq frame (dap--debug-session-active-frame (dap--cur-session)))
    (riptrace-equal (gethash "line" frame) line)
    (riptrace-equal (gethash "path" (gethash "source" frame)) riptrace-file))

  (riptrace-test "an expression is evaluated in its frame"
    (let ((body (riptrace-ask "evaluate" (list :expression "quantity" :context "hover" :frameId (gethash "id" frame)))))
      (unless (string-match "\\`[0-9]+\\'" (gethash "result" body)) (error "Quantity is %S" (gethash "result" body)))))

  (riptrace-test "continue shows the next hit, and the request for the one before goes back"
    (riptrace-equal (riptrace-hit-after "the next hit" (lambda () (call-interactively #'dap-continue))) 2)
    (riptrace-equal
     (riptrace-hit-after "the hit before"
                         (lambda ()
                           (riptrace-ask "reverseContinue"
                                         (list :threadId (dap--debug-session-thread-id (dap--cur-session))))))
     1))

  (riptrace-test "the end of the session ends the adapter"
    (riptrace-stop (dap--cur-session))
    (dap-breakpoint-delete-all))

  (riptrace-test "a logpoint writes a row for each hit"
    (riptrace-go-to "BP cart-add")
    (dap-breakpoint-add)
    (cl-letf (((symbol-function 'read-string) (lambda (&rest _) "quantity is {quantity}")))
      (dap-breakpoint-log-message riptrace-file (dap--get-breakpoint-at-point)))
    (setq riptrace-stops nil)
    (riptrace-start "logpoint")
    (riptrace-wait riptrace-first-hit-s "rows of the logpoint"
                   (lambda () (string-match "quantity is [0-9]+ .*\n\\(?:.*\n\\)*quantity is [0-9]+" riptrace-output)))
    (riptrace-equal riptrace-stops nil)
    (riptrace-stop (dap--cur-session))))

(kill-emacs (if (zerop riptrace-failed) 0 1))
;;; dap_test.el ends here
